package wire_test

import (
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/wire"
)

// prefix draws a masked prefix near 10.0.0.0 or fd00::, so that they often overlap.
func prefix(t *rapid.T, f opt.Family, name string) netip.Prefix {
	bits := rapid.IntRange(0, f.Bits()).Draw(t, name+" bits")
	return netip.PrefixFrom(address(t, f, name), bits).Masked()
}

func address(t *rapid.T, f opt.Family, name string) netip.Addr {
	b := make([]byte, f.Bits()/8)
	b[0] = rapid.SampledFrom([]byte{10, 0xfd}).Draw(t, name+" first")
	for i := 1; i < len(b); i++ {
		b[i] = rapid.SampledFrom([]byte{0, 0, 0, 1, 0x80, 0xff}).Draw(t, name)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// header builds the network header of a packet.
func header(src, dst netip.Addr) []byte {
	if src.Is4() {
		b := append([]byte{0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0}, src.AsSlice()...)
		return append(b, dst.AsSlice()...)
	}
	b := append([]byte{0x60, 0, 0, 0, 0, 0, 17, 64}, src.AsSlice()...)
	return append(b, dst.AsSlice()...)
}

func run(t rapid.TB, f wire.Filter, packet []byte) bool {
	vm, err := bpf.NewVM(f.Program())
	if err != nil {
		t.Fatal(err)
	}
	n, err := vm.Run(packet)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}

func TestKernelProgramMatchesWhatFilterMatches(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f wire.Filter
		var except []netip.Prefix
		for _, family := range opt.Families() {
			if rapid.Bool().Draw(t, "has "+family.String()) {
				f.Networks = f.Networks.With(family, prefix(t, family, "network"))
			}
			for range rapid.IntRange(0, 3).Draw(t, "exceptions") {
				except = append(except, prefix(t, family, "except"))
			}
		}
		f.Except = set.NewPrefixes(except...)
		family := rapid.SampledFrom([]opt.Family{opt.V4, opt.V6}).Draw(t, "family")
		p := header(address(t, family, "src"), address(t, family, "dst"))
		if got, want := run(t, f, p), f.Matches(p); got != want {
			t.Fatalf("%+v: packet % x: program says %v, filter %v", f, p, got, want)
		}
	})
}

func TestFilterMatchesOverlayAddressesOnly(t *testing.T) {
	f := wire.Filter{
		Networks: opt.Dual[netip.Prefix]{
			V4: opt.Some(netip.MustParsePrefix("10.0.0.0/8")),
			V6: opt.Some(netip.MustParsePrefix("fd44::/48")),
		},
		Except: set.NewPrefixes(netip.MustParsePrefix("10.80.0.0/24")),
	}
	for _, c := range []struct {
		name, src, dst string
		want           bool
	}{
		{"pod to pod", "10.1.0.2", "10.2.0.2", true},
		{"pod to outside", "10.1.0.2", "192.0.2.1", true},
		{"outside to pod", "192.0.2.1", "10.1.0.2", true},
		{"outside to outside", "192.0.2.1", "198.51.100.1", false},
		{"underlay inside the overlay's range", "10.80.0.1", "10.80.0.2", false},
		{"underlay to pod", "10.80.0.1", "10.1.0.2", true},
		{"IPv6 pod to pod", "fd44:0:0:1::2", "fd44:0:0:2::2", true},
		{"IPv6 pod to outside", "fd44:0:0:1::2", "2001:db8::1", true},
		{"IPv6 outside", "2001:db8::2", "2001:db8::1", false},
		{"neighbour discovery", "fe80::1", "ff02::1", false},
	} {
		p := header(netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst))
		if f.Matches(p) != c.want || run(t, f, p) != c.want {
			t.Errorf("%s: %s to %s: want %v, filter says %v, program %v", c.name, c.src, c.dst, c.want, f.Matches(p), run(t, f, p))
		}
	}
}

// FuzzMatches feeds both halves bytes that are no packet: neither may fail, and they agree.
func FuzzMatches(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0x45})
	f.Add([]byte{0x60, 0, 0})
	f.Add(header(netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.2.0.2")))
	f.Add(header(netip.MustParseAddr("fd44::1"), netip.MustParseAddr("fd44::2")))
	filter := wire.Filter{Networks: opt.Dual[netip.Prefix]{
		V4: opt.Some(netip.MustParsePrefix("10.0.0.0/8")),
		V6: opt.Some(netip.MustParsePrefix("fd44::/48")),
	}}
	vm, err := bpf.NewVM(filter.Program())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		whole := len(packet) >= 40 || len(packet) >= 20 && packet[0]>>4 == 4
		n, err := vm.Run(packet)
		if err != nil {
			t.Fatal(err)
		}
		if got := filter.Matches(packet); whole && got != (n > 0) {
			t.Errorf("% x: filter says %v, program %d", packet, got, n)
		}
	})
}
