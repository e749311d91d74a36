package wg

import (
	"fmt"
	"strings"
	"testing"

	"github.com/loden-net/loden/test/sandbox"
)

// hostBinder opens the kernel's sockets on a host of the sandbox.
type hostBinder struct{ host *sandbox.Host }

func (b hostBinder) open(port uint16, mark uint32) (out bound, err error) {
	err = b.host.Do(func() (err error) {
		out, err = kernelBinder{}.open(port, mark)
		return err
	})
	return out, err
}

func (b hostBinder) routes() (table routeTable, err error) {
	err = b.host.Do(func() (err error) { table, err = kernelBinder{}.routes(); return err })
	return table, err
}

func (b hostBinder) interfaceIndex(name string) (index uint32, known bool) {
	err := b.host.Do(func() error { index, known = kernelBinder{}.interfaceIndex(name); return nil })
	return index, known && err == nil
}

func (b hostBinder) interfaceName(index uint32) (name string, known bool) {
	err := b.host.Do(func() error { name, known = kernelBinder{}.interfaceName(index); return nil })
	return name, known && err == nil
}

func TestZoneOfAnEndpointIsANameOrANumber(t *testing.T) {
	d := idle()
	defer d.stopTimers()
	for given, want := range map[string]string{ // eth0 is number 3, and the only interface
		"[fe80::1%eth0]:7":           "[fe80::1%eth0]:7",
		"[fe80::1%3]:7":              "[fe80::1%eth0]:7",
		"[fe80::1%4]:7":              "[fe80::1%4]:7",
		"[fe80::1%0]:7":              "[fe80::1]:7",
		"[::ffff:192.0.2.1%eth0]:7":  "192.0.2.1:7",
		"[2001:db8::1]:7":            "[2001:db8::1]:7",
		"[fe80::1%0000000000003]:70": "[fe80::1%eth0]:70",
	} {
		x := &node{t: t, get: func() string { return described(t, d) }}
		if err := configure(d, "public_key="+key(1)+"\nendpoint="+given+"\n"); err != nil {
			t.Errorf("%s: %v", given, err)
		} else if got := x.value("endpoint"); got != want {
			t.Errorf("%s: got %s, want %s", given, got, want)
		}
	}
	err := configure(d, "public_key="+key(1)+"\nendpoint=[fe80::1%eth7]:7\n")
	if err == nil || err.Error() != `no interface "eth7" for endpoint: invalid argument` {
		t.Errorf("no such interface: %v", err)
	}
}

func TestPeerIsReachedAtALinkLocalAddressByItsInterfaceName(t *testing.T) {
	a, b := newMachine(t, 1), newMachine(t, 2)
	// Where the kernel sends what is for a link-local address on no interface in particular.
	lines(t, a.host, "link add first type veth peer name last", "link set last up", "link set first up")
	connect(t, a, b, true, 1500, 1420)
	for n, m := range []*machine{a, b} {
		lines(t, m.host, fmt.Sprintf("addr add fe80::77:%d/64 dev eth0 nodad", n+1))
	}
	const want = "[fe80::77:2%eth0]:51820"
	a.mustSet("public_key=%s\nendpoint=%s\n", b.public.Hex(), want)
	a.ping(t, "10.0.0.2")
	b.ping(t, "fd00::1")
	if got := a.value("endpoint"); got != want {
		t.Errorf("a sends to %s, want %s", got, want)
	}
	if got := b.value("endpoint"); !strings.HasPrefix(got, "[fe80::") || !strings.HasSuffix(got, "%eth0]:51820") { // learned
		t.Errorf("b sends to %s", got)
	}
	err := a.set("public_key=" + b.public.Hex() + "\nendpoint=[fe80::77:2%eth9]:51820\n")
	if err == nil || err.Error() != `no interface "eth9" for endpoint: invalid argument` {
		t.Errorf("no such interface: %v", err)
	}
}
