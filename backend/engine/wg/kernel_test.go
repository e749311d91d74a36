package wg

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// machine is a host with a device of ours on a real TUN interface. Machine n is 192.0.2.n
// and 2001:db8::n outside, 10.0.0.n and fd00::n inside.
type machine struct {
	*node
	host    *sandbox.Host
	workers int
	queues  int                 // of its TUN device
	between func(tunnel) tunnel // put between the device and its TUN; nil: nothing
}

func newMachine(t *testing.T, n int) *machine { return newMachineLike(t, n, machine{queues: 1}) }

// newMachineLike makes a machine with the hands, queues and what is between of another.
func newMachineLike(t *testing.T, n int, like machine) *machine {
	t.Helper()
	m := &machine{workers: like.workers, queues: like.queues, between: like.between, node: blank(t, "loden", n), host: sandboxtest.Host(t, fmt.Sprintf("wg%d", n))}
	m.start(t)
	t.Cleanup(func() { m.stop() })
	return m
}

// start runs a device on the machine's TUN interface, which is made if it is not there.
func (m *machine) start(t *testing.T) {
	t.Helper()
	err := m.host.Do(func() error {
		files, err := openTestTUN("wg0", m.queues)
		if err != nil {
			return err
		}
		m.device, err = New(files, "wg0", zerolog.Nop())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	m.device.binder, m.device.workers = hostBinder{m.host}, m.workers
	if m.between != nil {
		m.device.tunnel = m.between(m.device.tunnel)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.device.Run(ctx) }()
	m.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	sandboxtest.Until(t, 10*time.Second, "sockets", func() error {
		if m.device.sockets.Load() == nil {
			return os.ErrNotExist
		}
		return nil
	})
	m.set = func(s string) error { return m.device.Configure(strings.NewReader(s + "\n")) }
	m.get = func() string { return described(t, m.device) }
	m.begin()
}

// connect wires two machines and makes them peers over outer addresses of one family.
func connect(t *testing.T, a, b *machine, v6 bool, outerMTU, innerMTU int) {
	t.Helper()
	if err := sandbox.Wire(a.host, "eth0", b.host, "eth0"); err != nil {
		t.Fatal(err)
	}
	for n, m := range []*machine{a, b} {
		n++
		for _, line := range []string{
			fmt.Sprintf("addr add 192.0.2.%d/24 dev eth0", n), fmt.Sprintf("addr add 2001:db8::%d/64 dev eth0 nodad", n),
			fmt.Sprintf("link set eth0 mtu %d", outerMTU), fmt.Sprintf("link set wg0 mtu %d up", innerMTU),
			fmt.Sprintf("addr add 10.0.0.%d/24 dev wg0", n), fmt.Sprintf("addr add fd00::%d/64 dev wg0 nodad", n),
		} {
			if err := m.host.Run("ip", strings.Fields(line)...); err != nil {
				t.Fatal(err)
			}
		}
		m.device.LinkChanged()
	}
	for _, pair := range [][2]*machine{{a, b}, {b, a}} {
		pair[0].meet(pair[1].node, "")
		if v6 {
			pair[0].mustSet("public_key=%s\nendpoint=[%s]:51820\n", pair[1].public.Hex(), pair[1].outer6())
		}
	}
}

func (m *machine) ping(t *testing.T, to string, args ...string) {
	t.Helper()
	if err := m.host.Run("ping", append([]string{"-c1", "-W10", to}, args...)...); err != nil {
		t.Error(err)
	}
}

// transfer sends size bytes over TCP from a to an address of b and wants them whole.
func transfer(t *testing.T, a, b *machine, to string, size int64) {
	t.Helper()
	if err := sandboxtest.Transfer(a.host, b.host, to, size, time.Minute); err != nil {
		t.Error(err)
	}
}

func TestPacketsCrossRealInterfaces(t *testing.T) {
	for _, way := range []struct {
		name             string
		v6               bool
		outer, innerMTU  int
		wireSegmentation bool
	}{
		{"over IPv4", false, 1500, 1420, true},
		{"over IPv6", true, 1500, 1420, true},
		{"over IPv4, frames on the wire", false, 1500, 1420, false},
		{"over IPv6, frames on the wire", true, 1500, 1420, false},
		{"small", true, 1500, 1280, true},
		{"small, over IPv4", false, 1500, 1280, true},
		{"jumbo", false, 9000, 8920, true},
		{"jumbo, over IPv6", true, 9000, 8920, true},
		{"9000 inside", false, 9080, 9000, true},
		{"9000 inside, over IPv6", true, 9080, 9000, true},
		{"outer fragments", false, 1400, 1420, true},
		{"outer fragments, IPv6", true, 1400, 1420, true},
	} {
		t.Run(way.name, func(t *testing.T) {
			a, b := newMachine(t, 1), newMachine(t, 2)
			connect(t, a, b, way.v6, way.outer, way.innerMTU)
			if !way.wireSegmentation {
				for _, m := range []*machine{a, b} {
					if err := m.host.Run("ethtool", "-K", "eth0", "gso", "off", "tso", "off", "tx-udp-segmentation", "off"); err != nil {
						t.Fatal(err)
					}
				}
			}
			a.ping(t, "10.0.0.2")
			b.ping(t, "fd00::1", "-s", "1100")
			transfer(t, a, b, "10.0.0.2", 4<<20)
			transfer(t, b, a, "fd00::1", 4<<20)
		})
	}
}

func TestLocalAddressThatHasGoneIsForgotten(t *testing.T) {
	a, b := newMachine(t, 1), newMachine(t, 2)
	connect(t, a, b, false, 1500, 1420)
	if err := a.host.Run("ip", "addr", "add", "192.0.2.77/24", "dev", "eth0"); err != nil {
		t.Fatal(err)
	}
	b.mustSet("public_key=%s\nendpoint=192.0.2.77:51820\n", a.public.Hex())
	b.ping(t, "10.0.0.1") // b began: a answers from the address it was called at
	if got := a.only().Endpoint().Source.String(); got != "192.0.2.77" {
		t.Fatalf("a sends from %s", got)
	}
	if got := b.value("endpoint"); got != "192.0.2.77:51820" {
		t.Fatalf("b sends to %s", got)
	}
	if err := a.host.Run("ip", "addr", "del", "192.0.2.77/24", "dev", "eth0"); err != nil {
		t.Fatal(err)
	}
	a.ping(t, "10.0.0.2") // from another address now, and b follows
	if got := b.value("endpoint"); got != "192.0.2.1:51820" {
		t.Errorf("b sends to %s", got)
	}
}

func TestNewEngineTakesTheInterfaceOver(t *testing.T) {
	a, b := newMachine(t, 1), newMachine(t, 2)
	connect(t, a, b, true, 1500, 1420)
	a.ping(t, "10.0.0.2")
	files, err := a.device.tunnel.(kernelTUN).Duplicate()
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(files.Queues[0].Fd()), unix.TUNSETPERSIST, 1); err != nil {
		t.Fatal(err)
	}
	files.Close()
	a.stop()
	a.start(t)
	a.meet(b.node, "")
	a.mustSet("public_key=%s\nendpoint=[%s]:51820\n", b.public.Hex(), b.outer6())
	a.ping(t, "10.0.0.2") // one packet: it must not be lost
	b.ping(t, "fd00::1")
}

func TestInterfaceMayGoDownAndUp(t *testing.T) {
	a, b := newMachine(t, 1), newMachine(t, 2)
	connect(t, a, b, false, 1500, 1420)
	a.ping(t, "10.0.0.2")
	for _, state := range []string{"down", "up"} {
		for _, m := range []*machine{a, b} {
			if err := m.host.Run("ip", "link", "set", "wg0", state); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.ping(t, "10.0.0.2")
	b.ping(t, "10.0.0.1")
}
