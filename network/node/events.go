package node

import (
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/node/history"
	"github.com/loden-net/loden/network/probe"
)

const pathUnknown = probe.Unknown

// fewEvents is the number of events of the same text that stand by themselves. More of them
// become a single event, so that a whole cluster that joins does not push everything else
// out of the ring.
const fewEvents = 10

// passEvents returns the events between two passes.
func passEvents(before opt.Option[network.Status], now network.Status) []history.Event {
	last, ok := before.Get()
	was, is := plannedPeers(last), plannedPeers(now)
	var out []history.Event
	add := func(k history.Kind, text string, objects []string) {
		out = append(out, together(now.At, k, text, objects)...)
	}
	if now.Complete && !last.Complete {
		add(history.Ready, fmt.Sprintf("the data path is in place; peers: %d", is.Len()), []string{"node"})
	}
	if !ok {
		return out
	}
	var joined, left []wgtypes.Key
	for c := range sorted.Diff(was, is) {
		p, here := c.After.Get()
		q, there := c.Before.Get()
		switch {
		case here && !there:
			joined = append(joined, p.Key)
		case there && !here:
			left = append(left, q.Key)
		}
	}
	add(history.PeerJoined, "joined: its lease is a peer now", peerNames(now, joined))
	add(history.PeerLeft, "left: its lease ended or was released", peerNames(last, left))
	if last.Complete && len(now.Made) > 0 && samePlan(last.State, now.State) {
		for _, c := range now.Made {
			add(history.Repaired, c.Verb+" "+c.Object+": it was not as planned", []string{c.Part})
		}
	}
	return out
}

// plannedPeers returns the peers of the desired state of a pass.
func plannedPeers(s network.Status) backend.Peers {
	device, _ := s.State.Device.Get()
	return device.Peers
}

// samePlan reports whether two desired states are equal.
func samePlan(a, b network.State) bool {
	x, _ := a.Device.Get()
	y, _ := b.Device.Get()
	if !x.Peers.Equal(y.Peers) {
		return false
	}
	x.Peers, y.Peers, a.Device, b.Device = backend.Peers{}, backend.Peers{}, opt.None[backend.Config](), opt.None[backend.Config]()
	return reflect.DeepEqual(x, y) && reflect.DeepEqual(a, b)
}

// peerNames returns the names of the nodes with some keys, sorted; a key stands for a node
// without a name.
func peerNames(s network.Status, keys []wgtypes.Key) []string {
	if len(keys) == 0 {
		return nil
	}
	names := map[wgtypes.Key]string{} // of the keys alone: thousands of other peers are of no interest
	for _, k := range keys {
		names[k] = k.String()
	}
	planned := plannedPeers(s)
	for l := range s.Inputs.Leases.All() {
		if _, asked := names[l.Key]; !asked || l.Node == "" {
			continue
		}
		if p, ok := planned.Find(backend.Peer{Key: l.Key}); ok && p.Subnets == l.Subnets {
			names[l.Key] = l.Node
		}
	}
	out := slices.Collect(maps.Values(names))
	slices.Sort(out)
	return out
}

// reportEvents returns the events between two reports.
func reportEvents(before opt.Option[Report], now Report, at time.Time) []history.Event {
	last, ok := before.Get()
	if !ok {
		return nil
	}
	var out []history.Event
	add := func(k history.Kind, text string, objects ...string) {
		out = append(out, together(at, k, text, objects)...)
	}
	switch {
	case now.Ready && !last.Ready && last.Passes.Total > 0:
		add(history.Ready, "ready again", "node")
	case !now.Ready && last.Ready:
		add(history.Ready, "not ready: "+now.Reason, "node")
	}
	switch {
	case now.Store.Up && !last.Store.Up:
		add(history.Store, "answers again, after "+now.Store.Since.Sub(last.Store.Since).Round(time.Second).String(), "etcd")
	case !now.Store.Up && last.Store.Up:
		add(history.Store, "is away: "+now.Store.Error, "etcd")
	}
	if n := now.Engine.Replaced - last.Engine.Replaced; now.Engine.Replaced > last.Engine.Replaced {
		add(history.Engine, fmt.Sprintf("was silent and has been replaced (%d)", n), "engine "+now.Engine.Kind)
	}
	appeared, solved := diff.Sets(last.Problems, now.Problems)
	for _, p := range appeared {
		add(history.Problem, p.Reason, p.Object)
	}
	for _, p := range solved {
		add(history.Problem, "solved: "+p.Reason, p.Object)
	}
	out = append(out, guardEvents(last, now, at)...)
	return append(out, pathEvents(last, now, at)...)
}

// guardEvents returns an event for each counter of the guard that rose. A counter that fell
// counts from zero again, because its rule was replaced.
func guardEvents(last, now Report, at time.Time) []history.Event {
	before := map[GuardCounter]uint64{}
	for _, c := range last.Firewall.Clear {
		n := c.Packets
		c.Packets = 0
		before[c] = n
	}
	var out []history.Event
	for _, c := range now.Firewall.Clear {
		n := c.Packets
		c.Packets = 0
		was, known := before[c]
		if known && n < was {
			was = 0
		}
		if n > was {
			text := fmt.Sprintf("caught %d packets with overlay addresses in plaintext", n-was)
			out = append(out, history.Event{At: at, Kind: history.Guard, Object: c.Family + " " + c.Direction, Text: text})
		}
	}
	return out
}

// pathEvents returns the changes of the state of paths. The first proof that a path is up is
// no event: a start would have an event for each peer.
func pathEvents(last, now Report, at time.Time) []history.Event {
	type path struct{ key, family string }
	before := map[path]PathReport{}
	for _, p := range last.Peers {
		for _, r := range p.Paths {
			before[path{p.PublicKey, r.Family}] = r
		}
	}
	changed := map[string][]string{} // peers by text
	for _, p := range now.Peers {
		for _, r := range p.Paths {
			was, known := before[path{p.PublicKey, r.Family}]
			if !known || was.State == r.State || was.State == pathUnknown && r.State == probe.Up {
				continue
			}
			name := p.Node
			if name == "" {
				name = p.PublicKey
			}
			text := fmt.Sprintf("%s path: %s, was %s", familyOf(r), r.State, was.State)
			if r.Reason != "" {
				text += ": " + r.Reason
			}
			changed[text] = append(changed[text], name)
		}
	}
	var out []history.Event
	for _, text := range slices.Sorted(maps.Keys(changed)) {
		out = append(out, together(at, history.Path, text, changed[text])...)
	}
	return out
}

// together returns an event for each object, or a single event for many objects.
func together(at time.Time, k history.Kind, text string, objects []string) []history.Event {
	if len(objects) > fewEvents {
		names := strings.Join(objects[:fewEvents], ", ") + ", …"
		return []history.Event{{At: at, Kind: k, Object: fmt.Sprintf("%d nodes", len(objects)), Text: text + " (" + names + ")"}}
	}
	var out []history.Event
	for _, o := range objects {
		out = append(out, history.Event{At: at, Kind: k, Object: o, Text: text})
	}
	return out
}

// eventsAnswer is the body of /events.
type eventsAnswer struct {
	APIVersion int             `json:"apiVersion"` // 1
	Events     []history.Event `json:"events"`     // the newest last
}

// serveEvents answers with the last events.
func (r *recorder) serveEvents(w http.ResponseWriter, _ *http.Request) {
	events, _ := r.events.After(0)
	writeJSON(w, eventsAnswer{APIVersion: 1, Events: events})
}
