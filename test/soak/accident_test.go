package soak_test

import (
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"
)

// accidents are the events that may disturb the network, by name.
var accidents = map[string]func(*world){
	"peer restart": func(w *world) { w.restart(syscall.SIGTERM) },
	"peer killed":  func(w *world) { w.restart(syscall.SIGKILL) },
	"key change":   (*world).changeKey,
	"preshared key": func(w *world) {
		a, b := w.two()
		w.between(a, b).preshared = fmt.Sprintf("%064x", w.rand.Uint64())
		w.must(a.set(fmt.Sprintf("public_key=%s\nupdate_only=true\npreshared_key=%s\n", b.id.Public().Hex(), w.between(a, b).preshared)))
		w.must(b.set(fmt.Sprintf("public_key=%s\nupdate_only=true\npreshared_key=%s\n", a.id.Public().Hex(), w.between(a, b).preshared)))
	},
	"peer removed": func(w *world) {
		a, b := w.two()
		w.must(a.set(fmt.Sprintf("public_key=%s\nremove=true\n", b.id.Public().Hex())))
		w.pause(2 * time.Second)
		w.must(a.set(w.introduction(a, b)))
	},
	"other family outside": (*world).changeFamily,
	"move": func(w *world) { // the peers learn the new place from its packets
		a, _ := w.two()
		a.port = 50000 + w.rand.IntN(1000)
		w.must(a.set(fmt.Sprintf("listen_port=%d\n", a.port)))
	},
	"garbage":    (*world).garbage,
	"handshakes": (*world).handshakes,
	"inner MTU": func(w *world) {
		a, _ := w.two()
		w.must(a.host.Run("ip", "link", "set", "wg0", "mtu", fmt.Sprint(1280+w.rand.IntN(w.path-80-1280+1))))
	},
	"MTU of the path": (*world).changePath,
	"cable": func(w *world) {
		a, _ := w.two()
		w.must(w.sw.Unplug(a.host))
		w.pause(3 * time.Second)
		w.must(w.sw.Replug(a.host))
	},
}

func accidentNames() []string { return slices.Sorted(maps.Keys(accidents)) }

// accidentsFor lets accidents happen, each after the network has recovered from the last.
func (w *world) accidentsFor(limit time.Duration) {
	names := accidentNames()
	for end := time.Now().Add(limit); time.Now().Before(end) && !w.t.Failed(); {
		name := names[w.rand.IntN(len(names))]
		accidents[name](w)
		w.done[name]++
		w.recovered(name, time.Now())
		w.pause(time.Second)
	}
}

// pause is a wait of random length below limit, or as long as the test lives.
func (w *world) pause(limit time.Duration) {
	select {
	case <-time.After(time.Duration(w.rand.Int64N(int64(limit)))):
	case <-w.t.Context().Done():
	}
}

// two draws two different nodes.
func (w *world) two() (a, b *node) {
	i := w.rand.IntN(len(w.nodes))
	j := (i + 1 + w.rand.IntN(len(w.nodes)-1)) % len(w.nodes)
	return w.nodes[i], w.nodes[j]
}

// restart ends an engine and starts it again on the same interface.
func (w *world) restart(signal syscall.Signal) {
	a, b := w.two()
	if a.steady {
		a = b
	}
	if signal == syscall.SIGTERM {
		a.terminate()
	} else {
		_ = a.kill(signal) // as it was told
	}
	w.pause(2 * time.Second)
	w.must(a.start())
	w.must(a.set(w.config(a)))
}

// changeKey gives a node a new key, and configures it on its peers.
func (w *world) changeKey() {
	a, _ := w.two()
	old := a.id.Public()
	a.newKey()
	w.must(a.set(fmt.Sprintf("private_key=%s\n", a.id.Private().Hex())))
	for _, b := range w.others(a) {
		w.must(b.set(fmt.Sprintf("public_key=%s\nremove=true\n", old.Hex())))
		w.must(b.set(w.introduction(b, a)))
	}
}

// changeFamily moves two nodes from IPv4 outside to IPv6, or back. wireguard-go gets along
// with a single family at a time only: a packet to an IPv6 endpoint after a packet to IPv4 goes
// to the wrong address (WireGuard/wireguard-go pull request 135), so all its pairs move.
func (w *world) changeFamily() {
	a, b := w.two()
	moved := [][2]*node{{a, b}}
	for _, x := range []*node{a, b} {
		if x.engine == "wireguard-go" {
			moved = nil
			for _, y := range w.others(x) {
				moved = append(moved, [2]*node{x, y})
			}
		}
	}
	for _, pair := range moved { // packets under way to the old address must not count
		w.must(pair[0].set(fmt.Sprintf("public_key=%s\nremove=true\n", pair[1].id.Public().Hex())))
		w.must(pair[1].set(fmt.Sprintf("public_key=%s\nremove=true\n", pair[0].id.Public().Hex())))
		w.between(pair[0], pair[1]).v6 = !w.between(pair[0], pair[1]).v6
	}
	for _, pair := range moved {
		w.must(pair[0].set(w.introduction(pair[0], pair[1])))
		w.must(pair[1].set(w.introduction(pair[1], pair[0])))
	}
}

// changePath gives wires and tunnels another MTU, tunnels the MTU that wires carry.
func (w *world) changePath() {
	w.path = 1360 + w.rand.IntN(141)
	for _, x := range w.nodes {
		w.must(x.host.Run("ip", "link", "set", "wg0", "mtu", fmt.Sprint(w.path-80)))
		w.must(x.host.Run("ip", "link", "set", "eth0", "mtu", fmt.Sprint(w.path)))
	}
}

// recovered waits until every flow has carried something after an accident.
func (w *world) recovered(name string, since time.Time) {
	w.t.Helper()
	before := make([]uint64, len(w.flows))
	for i, f := range w.flows {
		before[i] = f.got.Load()
	}
	for deadline := since.Add(recoverWithin); ; {
		silent := ""
		for i, f := range w.flows {
			if f.got.Load() == before[i] {
				silent += " " + f.String()
			}
		}
		took := time.Since(since)
		switch {
		case w.t.Failed():
			return
		case silent == "":
			if took > w.slowest {
				w.slowest, w.slowName = took, name
			}
			return
		case time.Now().After(deadline):
			w.t.Errorf("%v after accident %q still silent:%s", took.Round(time.Second), name, silent)
			for _, x := range w.nodes {
				w.t.Logf("node %d is %s", x.n, x.describe())
			}
			return
		}
		select { // a fixed wait: draws from the seed must not depend on time
		case <-time.After(20 * time.Millisecond):
		case <-w.t.Context().Done():
		}
	}
}
