package wg

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// idle returns a device that is configured only, never run.
func idle() *Device { return newDevice(newMemoryTUN(), memoryBinder{wire: newWire()}, zerolog.Nop()) }

func configure(d *Device, s string) error { return d.Configure(strings.NewReader(s + "\n")) }

func described(t testing.TB, d *Device) string {
	t.Helper()
	var b strings.Builder
	if err := d.Describe(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// key returns the n-th of a row of keys, in hexadecimal.
func key(n int) string { return fmt.Sprintf("%064x", n) }

func TestWhatIsSetCanBeRead(t *testing.T) {
	d := idle()
	err := configure(d, "private_key="+strings.Repeat("77", 32)+"\nlisten_port=1234\nfwmark=0x20\nreplace_peers=true\n"+
		"public_key="+key(2)+"\nendpoint=[2001:db8::1]:7\nallowed_ip=10.0.0.9/8\nallowed_ip=fd00::1/64\n"+
		"public_key="+key(1)+"\npreshared_key="+key(3)+"\nendpoint=[::ffff:192.0.2.1]:7\npersistent_keepalive_interval=25\nprotocol_version=1\n")
	if err != nil {
		t.Fatal(err)
	}
	peer := func(n, psk int, endpoint string, keepalive int, allowed string) string {
		return "public_key=" + key(n) + "\npreshared_key=" + key(psk) + "\nprotocol_version=1\nendpoint=" + endpoint +
			"\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\npersistent_keepalive_interval=" +
			fmt.Sprint(keepalive) + "\n" + allowed
	}
	want := "private_key=70" + strings.Repeat("77", 31) + "\nlisten_port=1234\nfwmark=32\n" +
		peer(1, 3, "192.0.2.1:7", 25, "") + peer(2, 0, "[2001:db8::1]:7", 0, "allowed_ip=10.0.0.0/8\nallowed_ip=fd00::/64\n")
	if got := described(t, d); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	d.stopTimers()
}

// stopTimers ends what configuring an idle device may have begun.
func (d *Device) stopTimers() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range d.peers {
		p.Remove()
	}
}

func TestWrongRequestsChangeNothing(t *testing.T) {
	base := "private_key=" + key(5) + "\npublic_key=" + key(1) + "\nallowed_ip=10.0.0.0/8\n"
	for _, bad := range []struct {
		name, request string
		want          unix.Errno
	}{
		{"unknown key", "color=blue\n", unix.EINVAL},
		{"unknown key of a peer", "public_key=" + key(2) + "\ncolor=blue\n", unix.EINVAL},
		{"no value", "private_key\n", unix.EPROTO},
		{"short key", "public_key=" + key(2) + "\npublic_key=12\n", unix.EINVAL},
		{"not hexadecimal", "private_key=" + strings.Repeat("x", 64) + "\n", unix.EINVAL},
		{"port too large", "listen_port=65536\n", unix.EINVAL},
		{"endpoint without port", "public_key=" + key(2) + "\nendpoint=192.0.2.1\n", unix.EINVAL},
		{"name as endpoint", "public_key=" + key(2) + "\nendpoint=localhost:1\n", unix.EINVAL},
		{"zone of no interface", "listen_port=9\npublic_key=" + key(2) + "\nendpoint=[fe80::1%eth7]:1\n", unix.EINVAL},
		{"endless zone", "public_key=" + key(2) + "\nendpoint=[fe80::1%" + strings.Repeat("x", 100) + "]:1\n", unix.EINVAL},
		{"zone of IPv4", "public_key=" + key(2) + "\nendpoint=192.0.2.1%eth0:1\n", unix.EINVAL},
		{"prefix too long", "public_key=" + key(2) + "\nallowed_ip=10.0.0.0/33\n", unix.EINVAL},
		{"negative keepalive", "public_key=" + key(2) + "\npersistent_keepalive_interval=-1\n", unix.EINVAL},
		{"remove=false", "public_key=" + key(1) + "\nremove=false\n", unix.EINVAL},
		{"another protocol", "public_key=" + key(1) + "\nprotocol_version=2\n", unix.EINVAL},
		{"peer's line without a peer", "allowed_ip=10.0.0.0/8\n", unix.EINVAL},
		{"endless line", "public_key=" + key(2) + strings.Repeat("0", 1000) + "\n", unix.EINVAL},
	} {
		t.Run(bad.name, func(t *testing.T) {
			d := idle()
			if err := configure(d, base); err != nil {
				t.Fatal(err)
			}
			before := described(t, d)
			err := configure(d, bad.request)
			if !errors.Is(err, bad.want) {
				t.Errorf("got %v, want %v", err, bad.want)
			}
			if err != nil && strings.Contains(err.Error(), key(2)) {
				t.Error("the error shows a value")
			}
			if after := described(t, d); after != before {
				t.Errorf("changed to\n%s", after)
			}
		})
	}
}

func TestCutOffRequestChangesNothing(t *testing.T) {
	d := idle()
	err := d.Configure(strings.NewReader("public_key=" + key(1) + "\nallowed_ip=10.0.0.0/8\n"))
	if !errors.Is(err, io.EOF) || len(d.peers) != 0 {
		t.Errorf("%v, %d peers", err, len(d.peers))
	}
}

func TestOwnKeyIsNoPeer(t *testing.T) {
	d := idle()
	id, err := noise.NewIdentity(noise.Key{31: 9})
	if err != nil {
		t.Fatal(err)
	}
	add := "public_key=" + id.Public().Hex() + "\nallowed_ip=10.0.0.0/8\n"
	if err := errors.Join(configure(d, add), configure(d, "private_key="+id.Private().Hex()+"\n"), configure(d, add)); err != nil {
		t.Fatal(err)
	}
	if len(d.peers) != 0 || d.routes.lookup(netip.MustParseAddr("10.0.0.1")) != nil {
		t.Errorf("%d peers", len(d.peers))
	}
}

func TestUpdateOnlyAddsNobody(t *testing.T) {
	d := idle()
	if err := configure(d, "public_key="+key(1)+"\nupdate_only=true\nallowed_ip=10.0.0.0/8\n"); err != nil || len(d.peers) != 0 {
		t.Errorf("%v, %d peers", err, len(d.peers))
	}
}

func TestServeAnswersLikeWireGuardGo(t *testing.T) {
	d := idle()
	here, there := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(there) }()
	r := bufio.NewReader(here)
	for _, step := range []struct{ ask, want string }{
		{"set=1\nlisten_port=7\n\n", "errno=0\n\n"},
		{"get=1\n\n", "listen_port=7\nerrno=0\n\n"},
		{"set=1\nlisten_port=x\n\n", "errno=-22\n\n"},
	} {
		if _, err := io.WriteString(here, step.ask); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(step.want))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != step.want {
			t.Errorf("%q: got %q, %v, want %q", step.ask, got, err, step.want)
		}
	}
	if err := errors.Join(here.Close(), <-ended); err != nil {
		t.Error(err)
	}
}

func TestClientThatDoesNotReadStopsNobody(t *testing.T) {
	d := idle()
	if err := configure(d, "public_key="+key(1)+"\nallowed_ip=10.0.0.0/8\n"); err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe() // without any buffer: the answer waits for a reader
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(there) }()
	if _, err := io.WriteString(here, "get=1\n\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(here, make([]byte, 1)); err != nil { // the answer has begun
		t.Fatal(err)
	}
	if err := configure(d, "public_key="+key(2)+"\n"); err != nil {
		t.Fatal(err)
	}
	_ = here.Close()
	<-ended
}

func FuzzConfigure(f *testing.F) {
	f.Add("private_key=" + key(1) + "\nlisten_port=7\nfwmark=0\nreplace_peers=true\n")
	f.Add("public_key=" + key(1) + "\nremove=true\n")
	f.Add("public_key=" + key(1) + "\nendpoint=[fe80::1%3]:7\nallowed_ip=-10.0.0.0/8\nupdate_only=true\n")
	f.Add("public_key=" + key(1) + "\nendpoint=[fe80::1%eth0]:7\n")
	f.Add("public_key=" + key(1) + "\nendpoint=[fe80::1%eth7]:7\n")
	f.Add("public_key=" + key(1) + "\nendpoint=[::ffff:192.0.2.1%eth0]:7\n")
	f.Add("public_key=" + key(1) + "\nendpoint=[2001:db8::1%0]:7\nendpoint=[fe80::1%4294967296]:7\n")
	f.Add("public_key=" + key(1) + "\npersistent_keepalive_interval=1\nreplace_allowed_ips=true\npreshared_key=" + key(2) + "\n")
	f.Fuzz(func(t *testing.T, s string) {
		d := idle()
		defer d.stopTimers()
		if configure(d, s) != nil {
			return
		}
		// What was taken can be written down and read again.
		text, second := "", idle()
		defer second.stopTimers()
		for line := range strings.Lines(described(t, d)) {
			if !strings.HasPrefix(line, "last_") && !strings.HasPrefix(line, "tx_") && !strings.HasPrefix(line, "rx_") {
				text += line
			}
		}
		if err := configure(second, text); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if got, want := described(t, second), described(t, d); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
}
