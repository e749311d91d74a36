package wg

import (
	"net/netip"
	"testing"

	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/test/sandbox"
)

// The kernel refuses a train of datagrams that are larger than the MTU of the route, and fragments
// the same datagrams one by one.
func TestTrainsToANarrowPathAreTriedOnceUntilThePathChanges(t *testing.T) {
	a, err := sandbox.NewHost("narrow-a")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := sandbox.NewHost("narrow-b")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := sandbox.Wire(a, "eth0", b, "eth0"); err != nil {
		t.Fatal(err)
	}
	lines(t, a, "addr add 192.0.2.1/24 dev eth0", "link set eth0 up", "route add 192.0.2.2 dev eth0 mtu 1000")
	lines(t, b, "addr add 192.0.2.2/24 dev eth0", "link set eth0 up")
	var p conn.Pair
	if err := a.Do(func() (err error) { p, err = conn.Open(0, 0); return err }); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	d := idle()
	d.sockets.Store(&bound{v4: p.V4})
	send := func() (refused bool) {
		t.Helper()
		var out conn.Outgoing
		out.Start(netip.MustParseAddrPort("192.0.2.2:7"), netip.Addr{}, make([]byte, 1400), 0)
		out.Append(make([]byte, 1400), 0)
		all := []conn.Outgoing{out}
		if err := p.V4.Send(all); err != nil || all[0].Sent != 2800 {
			t.Fatalf("sent %d of 2800 bytes: %v", all[0].Sent, err)
		}
		return all[0].TrainRefused
	}
	count := func(when string, want uint64) {
		t.Helper()
		if got := d.Status().TrainsRefused; got != want {
			t.Errorf("%s: %d trains refused, want %d", when, got, want)
		}
	}
	if !send() {
		t.Error("the first refusal is not reported")
	}
	for range 9 {
		if send() {
			t.Error("a refusal is reported again")
		}
	}
	count("after ten trains", 1)
	d.pathsChanged()
	send()
	count("after a change of routes", 2)
	lines(t, a, "route replace 192.0.2.2 dev eth0 mtu 1500")
	d.pathsChanged()
	for range 10 {
		send()
	}
	count("on a path that is wide again", 2)
	if p.V4.SegmentationRefused() {
		t.Error("one narrow path ends trains for all")
	}
}
