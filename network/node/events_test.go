package node

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/node/history"
	"github.com/loden-net/loden/subnet"
)

// told returns the events after event number n, a line each.
func told(r *recorder, n uint64) string {
	events, _ := r.events.After(n)
	var lines []string
	for _, e := range events {
		lines = append(lines, fmt.Sprintf("%s %s: %s", e.Kind, e.Object, e.Text))
	}
	return strings.Join(lines, "\n")
}

func TestEventsTellOfPeersThatJoinAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		n, stop := b.run()
		later(time.Second)
		if got := told(n.recorder, 0); got != "ready node: the data path is in place; peers: 1" {
			t.Errorf("start: %s", got)
		}
		b.store.Change(func() { b.store.Leases = append(b.store.Leases, savedLease(3)) })
		later(time.Second)
		b.store.Change(func() { b.store.Leases = b.store.Leases[1:] })
		later(time.Second)
		want := "peer-joined n3: joined: its lease is a peer now\npeer-left n2: left: its lease ended or was released"
		if got := told(n.recorder, 1); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		must(t, stop())
	})
}

func TestAnEventTellsOfARepairAndNotOfAChangeOfThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		n, stop := b.run()
		later(time.Second)
		b.kernel.set(func() { b.kernel.held.Routes = nil }) // another program deletes the routes
		later(time.Minute)
		if got := told(n.recorder, 1); got != "repaired routes: set routes: it was not as planned" {
			t.Errorf("got %s", got)
		}
		must(t, stop())
	})
}

// reportWith returns the sample with an answer of the store and a path of its first peer.
func reportWith(change func(*Report)) Report {
	rep := sample(time.Unix(1e9, 0))
	rep.Store.Up = true
	rep.Peers[0].Paths = []PathReport{{Family: "ipv4", State: "up"}, {Family: "ipv6", State: "unknown"}}
	change(&rep)
	return rep
}

func TestReportsAreComparedForEvents(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Report)
		want   string
	}{
		"no change":       {func(*Report) {}, ""},
		"not ready":       {func(r *Report) { r.Ready, r.Reason = false, "waiting for etcd" }, "ready node: not ready: waiting for etcd"},
		"store away":      {func(r *Report) { r.Store.Up, r.Store.Error = false, "refused" }, "store etcd: is away: refused"},
		"engine replaced": {func(r *Report) { r.Engine.Replaced++ }, "engine engine kernel: was silent and has been replaced (1)"},
		"guard":           {func(r *Report) { r.Firewall.Clear[0].Packets += 5 }, "guard ipv4 out: caught 5 packets with overlay addresses in plaintext"},
		"new guard rules": {func(r *Report) { r.Firewall.Clear[0].Packets = 2 }, "guard ipv4 out: caught 2 packets with overlay addresses in plaintext"},
		"problem": {func(r *Report) { r.Problems = append(r.Problems, subnet.Problem{Object: "x", Reason: "bad"}) },
			"problem x: bad"},
		"solved": {func(r *Report) { r.Problems = nil }, "problem d 10.244.2.0-24: solved: subnet 10.244.2.0/24 is held by the older lease b"},
		"path down": {func(r *Report) {
			r.Peers[0].Paths[0] = PathReport{Family: "ipv4", State: "down", Reason: "UDP is blocked"}
		}, "path b: IPv4 path: down, was up: UDP is blocked"},
		"first proof":  {func(r *Report) { r.Peers[0].Paths[1].State = "up" }, ""},
		"first is bad": {func(r *Report) { r.Peers[0].Paths[1].State = "mtu" }, "path b: IPv6 path: mtu, was unknown"},
	} {
		r := newRecorder(nil)
		r.reported(reportWith(func(*Report) {}))
		r.reported(reportWith(c.change))
		if got := told(r, 0); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// An engine that hangs gives no peers; that is no reason to call every path changed.
func TestAReportWithoutItsPeersMakesNoEvents(t *testing.T) {
	r := newRecorder(nil)
	r.reported(reportWith(func(*Report) {}))
	r.reported(reportWith(func(r *Report) { r.Engine.Silent, r.Peers, r.Problems = true, nil, nil }))
	r.reported(reportWith(func(r *Report) { r.deviceUnknown, r.Peers, r.Problems = true, nil, nil }))
	r.reported(reportWith(func(*Report) {}))
	if got := told(r, 0); got != "" {
		t.Errorf("got %s", got)
	}
}

func TestManyEventsOfTheSameTextAreASingleEvent(t *testing.T) {
	var names []string
	for i := range 11 {
		names = append(names, fmt.Sprintf("n%02d", i))
	}
	got := together(time.Time{}, history.PeerLeft, "left", names)
	if len(got) != 1 || got[0].Object != "11 nodes" || got[0].Text != "left (n00, n01, n02, n03, n04, n05, n06, n07, n08, n09, …)" {
		t.Errorf("got %+v", got)
	}
	if got := together(time.Time{}, history.PeerLeft, "left", names[:10]); len(got) != 10 {
		t.Errorf("10 nodes: %d events", len(got))
	}
}

func TestHistoryHasTheRatesOfAPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rep := reportWith(func(r *Report) { r.Peers[0].Handshake = time.Now() })
		r := newRecorder(nil)
		moments := []struct{ received, want float64 }{{0, -1}, {5000, 500}, {5000, 0}, {100, -1}, {1100, 100}}
		for _, m := range moments {
			rep.Peers[0].Received = int64(m.received)
			r.samples.Add(time.Now(), r.sample(rep, time.Now()))
			time.Sleep(10 * time.Second)
		}
		r.reported(rep)
		series, ok := r.samples.Of(r.keyOf("b"))
		if !ok || len(series.Times) != len(moments) || !series.Paths.V4.Present() || series.Paths.V6.Present() {
			t.Fatalf("got %+v, %v", series, ok)
		}
		for i, m := range moments {
			got := series.Received[i]
			if known := got >= 0; known != (m.want >= 0) || known && (float64(got) < m.want*0.999 || float64(got) > m.want*1.001) {
				t.Errorf("moment %d: %v bytes/s, want %v", i, got, m.want)
			}
			if want := float64(10 * i); series.Handshake[i] < history.Number(want*0.999) || series.Handshake[i] > history.Number(want*1.001) {
				t.Errorf("moment %d: handshake %v s ago, want %v", i, series.Handshake[i], want)
			}
		}
	})
}

func TestThePlanIsToldAsLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		n, stop := b.run()
		later(time.Second)
		s, _ := n.reconciler.Status()
		var text []string
		for _, p := range plannedParts(s.State) {
			text = append(text, p.Part+": "+strings.Join(p.Lines, "; "))
		}
		got := strings.Join(text, "\n")
		for _, part := range []string{"device: UDP port 51820, MTU ", "peers: 1", "10.244.0.0/16 through the tunnel", "IPv4 packets of 10.244.0.0/16 in plaintext: guard enforce", "env: IPv4 pods get addresses of 10.244."} {
			if !strings.Contains(got, part) {
				t.Errorf("no %q in\n%s", part, got)
			}
		}
		must(t, stop())
	})
	if got := plannedParts(network.State{}); len(got) != 0 {
		t.Errorf("a node without a lease: %+v", got)
	}
}
