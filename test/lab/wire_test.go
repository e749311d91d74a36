package lab

import (
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox"
)

func TestUnderlayCarriesOnlyTunnelsEtcdAndNeighbours(t *testing.T) {
	a, b := netip.MustParseAddr("172.20.0.17"), netip.MustParseAddr("172.20.0.18")
	six, all := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1")
	for name, c := range map[string]struct {
		p    sandbox.Packet
		want Kind
	}{
		"tunnel":             {sandbox.Packet{EtherType: unix.ETH_P_IP, Src: a, Dst: b, Protocol: 17, SrcPort: 51820, DstPort: 51820}, Tunnel},
		"tunnel to outside":  {sandbox.Packet{EtherType: unix.ETH_P_IP, Src: a, Dst: netip.MustParseAddr("198.18.0.1"), Protocol: 17, SrcPort: 51820, DstPort: 51820}, Unexpected},
		"another UDP port":   {sandbox.Packet{EtherType: unix.ETH_P_IP, Src: a, Dst: b, Protocol: 17, SrcPort: 8472, DstPort: 8472}, Unexpected},
		"tunnel, refused":    {sandbox.Packet{EtherType: unix.ETH_P_IP, Src: b, Dst: a, Protocol: 1, ICMPType: 3, SrcPort: 51820, DstPort: 51820}, Tunnel},
		"another, refused":   {sandbox.Packet{EtherType: unix.ETH_P_IP, Src: b, Dst: a, Protocol: 1, ICMPType: 3, SrcPort: 8472, DstPort: 8472}, Unexpected},
		"etcd":               {sandbox.Packet{EtherType: unix.ETH_P_IP, Src: a, Dst: b, Protocol: 6, SrcPort: 40000, DstPort: 2379}, Etcd},
		"ssh":                {sandbox.Packet{EtherType: unix.ETH_P_IP, Src: a, Dst: b, Protocol: 6, SrcPort: 40000, DstPort: 22}, Unexpected},
		"ping":               {sandbox.Packet{EtherType: unix.ETH_P_IP, Src: a, Dst: b, Protocol: 1, ICMPType: 8}, Unexpected},
		"ARP":                {sandbox.Packet{EtherType: unix.ETH_P_ARP, Src: a, Dst: b}, Neighbour},
		"neighbour question": {sandbox.Packet{EtherType: unix.ETH_P_IPV6, Src: six, Dst: all, Protocol: 58, ICMPType: 135}, Neighbour},
		"ping of all":        {sandbox.Packet{EtherType: unix.ETH_P_IPV6, Src: six, Dst: all, Protocol: 58, ICMPType: 128}, Unexpected},
		"unreadable":         {sandbox.Packet{}, Unexpected},
	} {
		if got := onUnderlay(c.p); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestCanariesAreReadAsWhatTheyAre makes the frames that prove the packet socket's sight.
func TestCanariesAreReadAsWhatTheyAre(t *testing.T) {
	for _, addr := range []string{"10.244.254.1", "fd10:244::fe01"} {
		frame := canaryFrame(netip.MustParseAddr(addr), canaryPrefix+"0123456789abcdef"+marker)
		p := sandbox.ParseFrame(frame)
		if p.Src.String() != addr || p.Dst.String() != addr || p.Protocol != 17 || p.DstPort != 9 || !isOverlay(p.Src) {
			t.Errorf("%s: read as %+v", addr, p)
		}
		if text, ok := canaryIn(frame); !ok || text != canaryPrefix+"0123456789abcdef" {
			t.Errorf("%s: canary %q, %v", addr, text, ok)
		}
		if _, ok := canaryIn(frame[:len(frame)-len(marker)-1]); ok {
			t.Errorf("%s: half a canary was taken for one", addr)
		}
	}
}

// TestWireCountsClearByAddressAndByMarker feeds frames of the two kinds of leak.
func TestWireCountsClearByAddressAndByMarker(t *testing.T) {
	w := &Wire{classify: onUnderlay, counts: map[Kind]int{}, tunnels: map[[2]netip.Addr]int{}, canaries: map[string]int{}}
	w.see(canaryFrame(netip.MustParseAddr("10.244.3.4"), "no marker"))
	w.see(canaryFrame(netip.MustParseAddr("fd10:244:0:7::1"), "no marker"))
	w.see(canaryFrame(netip.MustParseAddr("172.20.0.17"), "wrapped "+marker))
	w.see(canaryFrame(netip.MustParseAddr("172.20.0.17"), "something else"))
	w.see(canaryFrame(netip.MustParseAddr("10.244.3.4"), canaryPrefix+"0123456789abcdef"))
	if w.counts[Clear] != 3 || w.counts[Unexpected] != 1 {
		t.Errorf("counted %v, want 3 clear and 1 unexpected", w.counts)
	}
	if v4, v6 := w.Clear().Of(opt.V4).Or(0), w.Clear().Of(opt.V6).Or(0); v4 != 2 || v6 != 1 {
		t.Errorf("clear by family: %d and %d, want 2 and 1", v4, v6)
	}
	if w.canaries[canaryPrefix+"0123456789abcdef"] != 1 {
		t.Errorf("canaries %v", w.canaries)
	}
}

func TestDifferencesOfSnapshotsNameBothSides(t *testing.T) {
	before, after := []string{"links: a", "links: b", "links: b"}, []string{"links: b", "links: b", "links: c"}
	if got := Differences(before, after); !slices.Equal(got, []string{"- links: a", "+ links: c"}) {
		t.Errorf("got %q", got)
	}
	if got := Differences(before, before); len(got) != 0 {
		t.Errorf("equal snapshots differ: %q", got)
	}
	if got := Differences(before, before[:2]); len(got) == 0 {
		t.Error("a line that is there once instead of twice is no difference")
	}
}
