package wg

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/offload"
)

// node is a WireGuard node of either make, on a wire.
type node struct {
	t       *testing.T
	name    string
	private noise.Key
	public  noise.Key
	outer   netip.AddrPort
	inner   []netip.Addr
	device  *Device // nil for wireguard-go
	set     func(string) error
	get     func() string
	in      func([]byte)
	inSuper func(offload.Header, []byte) // ours only
	out     <-chan []byte
	stop    func()
}

// maker makes a node: ours or theirs.
type maker func(t *testing.T, w *wire, n int) *node

// describe fills in what does not depend on the make. Node n has the addresses 192.0.2.n
// outside and 10.0.0.n, fd00::n inside.
func blank(t *testing.T, name string, n int) *node {
	t.Helper()
	var private noise.Key
	rand.Read(private[:])
	id, err := noise.NewIdentity(private)
	if err != nil {
		t.Fatal(err)
	}
	return &node{
		t: t, name: name, private: id.Private(), public: id.Public(),
		outer: netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:51820", n)),
		inner: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", n)), netip.MustParseAddr(fmt.Sprintf("fd00::%d", n))},
	}
}

// ours makes a node with the device of this package.
func ours(t *testing.T, w *wire, n int) *node {
	t.Helper()
	x := blank(t, "loden", n)
	tun := newMemoryTUN()
	x.device = newDevice(tun, memoryBinder{w, []netip.Addr{x.outer.Addr(), x.outer6()}}, zerolog.Nop())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- x.device.Run(ctx) }()
	x.set = func(s string) error { return x.device.Configure(strings.NewReader(s + "\n")) }
	x.get = func() string {
		var b strings.Builder
		if err := x.device.Describe(&b); err != nil {
			t.Error(err)
		}
		return b.String()
	}
	x.in = func(p []byte) { tun.in <- append(make([]byte, offload.HeaderSize), p...) }
	x.inSuper = func(h offload.Header, p []byte) {
		b := make([]byte, offload.HeaderSize, offload.HeaderSize+len(p))
		h.Encode(b)
		tun.in <- append(b, p...)
	}
	x.out = tun.out
	x.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for x.device.sockets.Load() == nil { // Run opens them
		time.Sleep(time.Millisecond)
	}
	x.begin()
	return x
}

// reachable keeps devices of wireguard-go and their peers from being collected: their
// finalizers touch channels of a synctest bubble from outside, which ends the program.
var reachable []any

// theirs makes a node with wireguard-go.
func theirs(t *testing.T, w *wire, n int) *node {
	t.Helper()
	x := blank(t, "wireguard-go", n)
	tun := tuntest.NewChannelTUN()
	d := device.NewDevice(tun.TUN(), &theirBind{wire: w, addr: x.outer.Addr()}, device.NewLogger(device.LogLevelSilent, ""))
	reachable = append(reachable, d)
	x.set = func(s string) error {
		err := d.IpcSet(s)
		for line := range strings.Lines(s) {
			if digits, ok := strings.CutPrefix(strings.TrimSpace(line), "public_key="); ok {
				raw, err := hex.DecodeString(digits)
				if err != nil {
					t.Error(err)
					continue
				}
				reachable = append(reachable, d.LookupPeer(device.NoisePublicKey(raw)))
			}
		}
		return err
	}
	x.get = func() string {
		s, err := d.IpcGet()
		if err != nil {
			t.Error(err)
		}
		return s
	}
	x.in = func(p []byte) { tun.Outbound <- p }
	x.out = tun.Inbound
	x.stop = d.Close
	x.begin()
	if err := d.Up(); err != nil {
		t.Fatal(err)
	}
	return x
}

// begin gives the node its key and port.
func (x *node) begin() {
	x.t.Helper()
	x.mustSet("private_key=%s\nlisten_port=%d\n", x.private.Hex(), x.outer.Port())
}

func (x *node) outer6() netip.Addr {
	return netip.MustParseAddr("2001:db8::" + strconv.Itoa(int(x.outer.Addr().As4()[3])))
}

func (x *node) mustSet(format string, args ...any) {
	x.t.Helper()
	if err := x.set(fmt.Sprintf(format, args...)); err != nil {
		x.t.Fatalf("configure %s: %v", x.name, err)
	}
}

// meet makes y a peer of x; more is further lines of UAPI.
func (x *node) meet(y *node, more string) {
	x.t.Helper()
	x.mustSet("public_key=%s\nendpoint=%s\nallowed_ip=%s/32\nallowed_ip=%s/128\n%s", y.public.Hex(), y.outer, y.inner[0], y.inner[1], more)
}

// value returns a value of the only peer from get.
func (x *node) value(key string) string {
	for line := range strings.Lines(x.get()) {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func (x *node) number(key string) int {
	n, err := strconv.Atoi(x.value(key))
	if err != nil {
		x.t.Fatalf("%s of %s: %v", key, x.name, err)
	}
	return n
}

// datagram returns a UDP packet from x to y in family f (0: IPv4, 1: IPv6).
func datagram(x, y *node, f int, payload []byte) []byte {
	var b []byte
	size := 8 + len(payload)
	if f == 0 {
		b = []byte{0x45, 0, byte((20 + size) >> 8), byte(20 + size), 0, 0, 0x40, 0, 64, 17, 0, 0}
		b = append(append(b, x.inner[0].AsSlice()...), y.inner[0].AsSlice()...)
		binary.BigEndian.PutUint16(b[10:], ^offload.Sum(b, 0))
	} else {
		b = []byte{0x60, 0, 0, 0, byte(size >> 8), byte(size), 17, 64}
		b = append(append(b, x.inner[1].AsSlice()...), y.inner[1].AsSlice()...)
	}
	b = append(b, 0x10, 0, 0x20, 0, byte(size>>8), byte(size), 0, 0)
	return append(b, payload...)
}

// says sends a packet from x and wants it at y.
func (x *node) says(y *node, f int, payload string) {
	x.t.Helper()
	p := datagram(x, y, f, []byte(payload))
	x.in(bytes.Clone(p))
	y.hears(p)
}

// hears wants packet p to arrive within the time a handshake may take.
func (x *node) hears(p []byte) {
	x.t.Helper()
	select {
	case got := <-x.out:
		if !bytes.Equal(got, p) {
			x.t.Fatalf("%s got %x\nwant %x", x.name, got, p)
		}
	case <-time.After(30 * time.Second):
		x.t.Fatalf("%s heard nothing for 30 s", x.name)
	}
}

// hearsNothing wants silence for a while.
func (x *node) hearsNothing(for_ time.Duration) {
	x.t.Helper()
	select {
	case got := <-x.out:
		x.t.Fatalf("%s got %x", x.name, got)
	case <-time.After(for_):
	}
}
