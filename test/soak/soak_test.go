// Package soak_test owns the long run: engines as processes on real interfaces, traffic of
// which every byte is checked, and accidents drawn from a seed. No engine may crash, race,
// leak, or stay silent after an accident.
//
//	go test ./test/soak -soak 10m -seed 7
//
//	loden, race detector ──┐
//	loden, never restarted ┼── switch ── stranger, who floods
//	wireguard-go ──────────┘
//
// `make soak` runs ten minutes; `make test` only as long as it takes to see that it works.
package soak_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

var (
	soakFor  = flag.Duration("soak", 10*time.Second, "how long TestSoak lasts")
	soakSeed = flag.Uint64("seed", 0, "of TestSoak's accidents; 0: another one each time")
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// recoverWithin is how long any flow may be silent after an accident: a handshake may be
// repeated twice, and TCP backs off meanwhile.
const recoverWithin = 45 * time.Second

// world is everything of a run.
type world struct {
	t        *testing.T
	rand     *rand.Rand
	sw       *sandbox.Switch
	nodes    []*node
	stranger *sandbox.Host
	pairs    map[[2]int]*pair
	flows    []*flow
	path     int            // MTU of the wires; tunnels have 80 less, or less than that
	done     map[string]int // accidents
	slowest  time.Duration
	slowName string
}

// pair holds the properties of two nodes together; the first has the lower number.
type pair struct {
	preshared string // hexadecimal
	v6        bool   // outside
}

func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	began := time.Now()
	defer func() {
		t.Logf("seed %d, %v: go test ./test/soak -soak %v -seed %d", seed, time.Since(began).Round(time.Second), *soakFor, seed)
	}()
	w := newWorld(t, seed)
	w.startTraffic()
	w.recovered("first start", time.Now())
	warm := min(*soakFor/5, time.Minute)
	w.accidentsFor(warm)
	before := w.sample("warm")
	for left := *soakFor - warm; left > 0; left -= time.Minute {
		w.accidentsFor(min(left, time.Minute))
		if !t.Failed() {
			w.sample(time.Since(began).Round(time.Second).String())
		}
	}
	w.stopTraffic()
	if !t.Failed() {
		w.settle()
		w.flat(before)
	}
	w.end()
	t.Log(w.summary())
}

// newWorld starts the engines and makes everybody everybody's peer.
func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, path: 1500, rand: rand.New(rand.NewPCG(seed, 1)), pairs: map[[2]int]*pair{}, done: map[string]int{}}
	plain, raced := buildEngine(t, false), buildEngine(t, true)
	sw, err := sandbox.NewSwitch("switch")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sw.Close(); err != nil {
			t.Error(err)
		}
	})
	w.sw = sw
	for n, kind := range []struct {
		program, engine string
		steady          bool
	}{{raced, "loden", false}, {plain, "loden", true}, {plain, "wireguard-go", false}} {
		x := newNode(t, n+1, kind.program, kind.engine)
		x.steady = kind.steady
		w.nodes = append(w.nodes, x)
		w.plug(x.host, n+1)
	}
	w.stranger = sandboxtest.Host(t, "stranger")
	w.plug(w.stranger, strangerFirst)
	for n := 1; n < strangerAddrs; n++ {
		w.must(w.stranger.Run("ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", strangerFirst+n), "dev", "eth0"))
	}
	ours, theirs := w.rand.IntN(2) == 1, w.rand.IntN(2) == 1 // see changeFamily
	for key, v6 := range map[[2]int]bool{{1, 2}: ours, {1, 3}: theirs, {2, 3}: theirs} {
		w.pairs[key] = &pair{preshared: strings.Repeat("0", 64), v6: v6}
	}
	for _, x := range w.nodes {
		w.must(x.start())
		w.must(x.up())
		w.must(x.set(w.config(x)))
	}
	return w
}

// plug joins a host to the switch as number n.
func (w *world) plug(h *sandbox.Host, n int) {
	w.t.Helper()
	w.must(w.sw.Plug(h, "eth0"))
	w.must(h.Run("ip", "addr", "add", fmt.Sprintf("192.0.2.%d/24", n), "dev", "eth0"))
	w.must(h.Run("ip", "addr", "add", fmt.Sprintf("2001:db8::%d/64", n), "dev", "eth0", "nodad"))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// between returns the pair of two nodes.
func (w *world) between(a, b *node) *pair { return w.pairs[[2]int{min(a.n, b.n), max(a.n, b.n)}] }

// config is everything about x, as UAPI.
func (w *world) config(x *node) string {
	s := fmt.Sprintf("private_key=%s\nlisten_port=%d\nreplace_peers=true\n", x.id.Private().Hex(), x.port)
	for _, y := range w.nodes {
		if y != x {
			s += w.introduction(x, y)
		}
	}
	return s
}

// introduction is the configuration of y as a peer of x.
func (w *world) introduction(x, y *node) string {
	p := w.between(x, y)
	return fmt.Sprintf("public_key=%s\npreshared_key=%s\nendpoint=%s\nreplace_allowed_ips=true\nallowed_ip=10.0.0.%d/32\nallowed_ip=fd00::%d/128\n",
		y.id.Public().Hex(), p.preshared, y.endpoint(p.v6), y.n, y.n)
}

// others are all nodes but x.
func (w *world) others(x *node) (out []*node) {
	for _, y := range w.nodes {
		if y != x {
			out = append(out, y)
		}
	}
	return out
}

// summary describes the run so far.
func (w *world) summary() string {
	var b strings.Builder
	n := 0
	for _, name := range accidentNames() {
		n += w.done[name]
		fmt.Fprintf(&b, ", %s %d", name, w.done[name])
	}
	tcp, udp, sent := w.carried()
	return fmt.Sprintf("%d accidents%s; the slowest recovery took %v, after %s; %.1f MB of TCP and %d of %d UDP datagrams arrived as they were sent",
		n, b.String(), w.slowest.Round(time.Millisecond), w.slowName, float64(tcp)/1e6, udp, sent)
}
