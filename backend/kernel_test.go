//go:build kernel

package backend_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
)

// These run where the kernel has WireGuard: `make test-kernel` boots a suitable kernel.

func TestKernelAndUserspaceNodesReachEachOther(t *testing.T) {
	for _, engines := range [][2]string{{"auto", "kernel"}, {"kernel", "wireguard-go"}, {"kernel", "loden"}} {
		for _, family := range opt.Families() {
			t.Run(fmt.Sprintf("%s-%s-%s", engines[0], engines[1], family), func(t *testing.T) {
				a, b := pair(t)
				a.start(engines[0])
				b.start(engines[1])
				connect(a, b, family)
				a.reaches(b)
				b.reaches(a)
				if s := a.status(); s.Kind != backend.Kernel || !s.Up || s.Port != 51820 || s.EnginePID != 0 || s.Peers[0].Received == 0 {
					t.Errorf("status: %+v", s)
				}
				for _, n := range []*node{a, b} {
					if got := n.apply(none); !slices.Equal(got, []string{"device: delete loden0"}) {
						t.Errorf("removal: %q", got)
					}
				}
			})
		}
	}
}

func TestKernelIsChosenByItself(t *testing.T) {
	a := newNode(t, 1)
	a.start("auto")
	if s := a.status(); s.Kind != backend.Kernel || s.Reason != "the kernel has WireGuard" {
		t.Errorf("before: %+v", s)
	}
	got := a.apply(opt.Some(a.config()))
	want := []string{
		"device: add loden0 (kernel WireGuard)", "device: set MTU 1420 of loden0", "device: add address 10.244.1.0/32 to loden0",
		"device: add address fd44:1::/128 to loden0", "device: set key and port 51820 of loden0", "device: set loden0 up",
	}
	if got[1] == "device: add address 10.244.1.0/32 to loden0" { // a kernel interface starts with 1420 where its default is that
		want = slices.Delete(want, 1, 2)
	}
	if !slices.Equal(got, want) {
		t.Errorf("changes\ngot  %q\nwant %q", got, want)
	}
}

func TestKernelInterfaceIsAdoptedWithItsSessions(t *testing.T) {
	a, b := pair(t)
	a.start("auto")
	b.start("auto")
	connect(a, b, opt.V4)
	a.reaches(b)
	before := a.status()
	a.kill()
	a.start("auto")
	if got := a.apply(opt.Some(a.config(b.peer(opt.V4)))); len(got) != 0 {
		t.Errorf("a new control process changes %q", got)
	}
	after := a.status()
	if !after.Peers[0].Handshake.Equal(before.Peers[0].Handshake) || after.Reason != "loden0 is a kernel WireGuard interface already" {
		t.Errorf("status %+v, before %+v", after, before)
	}
}

func TestKernelAndUserspaceReplaceEachOtherWhenAskedTo(t *testing.T) {
	a, b := pair(t)
	b.start("kernel")
	for round, engineName := range []string{"wireguard-go", "kernel", "wireguard-go"} {
		a.start(engineName)
		if round == 0 {
			connect(a, b, opt.V4)
		} else if got := a.apply(opt.Some(a.config(b.peer(opt.V4)))); got[0] != "device: delete loden0: another kind of WireGuard is wanted" {
			t.Errorf("changes to %s: %q", engineName, got)
		}
		a.route()
		a.reaches(b)
		if s := a.status(); string(s.Kind) != engineName || s.EnginePID != 0 != (engineName != "kernel") {
			t.Errorf("status under %s: %+v", engineName, s)
		}
		a.close()
		a.start("auto") // keeps the existing interface
		if got := a.apply(opt.Some(a.config(b.peer(opt.V4)))); len(got) != 0 {
			t.Errorf("auto after %s changes %q", engineName, got)
		}
		a.close()
	}
}

func TestKernelPortInUseIsOneClearErrorAndNothingChanges(t *testing.T) {
	a := newNode(t, 1)
	before := hostState(a)
	a.start("kernel")
	var taken net.PacketConn
	if err := a.Do(func() (err error) {
		taken, err = net.ListenPacket("udp4", ":51820")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	got := a.ask(request{Op: "apply", Want: opt.Some(a.config())})
	if want := "UDP port 51820: " + backend.ErrPortTaken.Error(); got.Error != want || len(got.Changes) > 0 {
		t.Errorf("got %q %q, want %q", got.Changes, got.Error, want)
	}
	if after := hostState(a); after != before {
		t.Errorf("the host changed to\n%s\nfrom\n%s", after, before)
	}
}

// A thousand peers do not fit one netlink message. Then some go, some change and prefixes
// move: the kernel must follow as the model device of the unit tests does.
func TestKernelHoldsAThousandPeersAndFollowsTheirChanges(t *testing.T) {
	a := newNode(t, 1)
	a.start("kernel")
	c := a.config()
	for i := range 1000 {
		c.Peers = c.Peers.With(backend.Peer{
			Key:      wgtypes.Key{1, byte(i >> 8), byte(i)},
			Endpoint: netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 51820),
			Subnets: opt.Dual[netip.Prefix]{}.
				With(opt.V4, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32)).
				With(opt.V6, netip.MustParsePrefix(fmt.Sprintf("fd44:%x::/64", 0x1000+i))),
		})
	}
	a.apply(opt.Some(c)) // fails when a second look finds a difference
	if s := a.status(); len(s.Peers) != 1000 {
		t.Fatalf("%d peers", len(s.Peers))
	}
	all := c.Peers.Slice()
	peers := slices.Clone(all[:900])
	for i := range 100 { // neighbours swap their IPv4 prefixes; IPv6 stays
		p, q := &peers[2*i], &peers[2*i+1]
		p.Subnets.V4, q.Subnets.V4 = q.Subnets.V4, p.Subnets.V4
	}
	for i := range 50 {
		peers[300+i].Subnets = peers[300+i].Subnets.Without(opt.V6)
	}
	peers[400].Subnets = all[950].Subnets // of a peer that goes
	moved := c
	moved.Peers = sorted.Of(peers...)
	if got := a.apply(opt.Some(moved)); len(got) != 1 || !strings.HasPrefix(got[0], "device: set ") {
		t.Errorf("changes: %q", got)
	}
}
