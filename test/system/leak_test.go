package system_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// leakSteps is how many things go wrong in TestNothingLeaksWhateverHappens.
const leakSteps = 220

// TestNothingLeaksWhateverHappens lets pods and nodes send to pods of other nodes all the
// time while a random schedule ends, starts, deletes, flushes and cuts. Not one frame with
// an overlay address, or with the traffic's marker, may be on either switch. LODEN_SEED
// repeats a schedule.
//
// Two nets keep traffic in: the unreachable route and the guard. The schedule is root, and
// root could take both away; it takes the second only once the daemon has put the first
// back. The control at the end shows the wire without both.
func TestNothingLeaksWhateverHappens(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("LODEN_SEED"), 10, 64); err == nil {
		seed = s
	}
	firewall := []string{"iptables", "nftables"}[seed%2]
	t.Logf("LODEN_SEED=%d, rules in %s", seed, firewall)
	l := upLab(t, lab.Options{Nodes: 3, Pods: 1, Flags: []string{"--resync", "1s", "--firewall", firewall}})
	verdict(t, l)
	ctx, quiet := context.WithCancel(t.Context())
	defer quiet()
	sent := make(chan opt.Dual[int64], 1)
	go func() {
		n, err := l.Chatter(ctx, 50)
		if err != nil {
			t.Error(err)
		}
		sent <- n
	}()
	s := newSchedule(t, l, seed)
	for range leakSteps {
		s.step()
	}
	noLeak(t, l, s.history)
	s.calm()
	for _, n := range l.Nodes {
		within(t, n.Serving)
	}
	for _, p := range l.Check(t.Context()).Paths {
		if p.Problem != "" || !p.Encrypted {
			t.Errorf("afterwards, %s to %s, %s: encrypted %v %s", p.From, p.To, p.Family, p.Encrypted, p.Problem)
		}
	}
	noLeak(t, l, s.history)
	s.control()
	quiet()
	total := <-sent
	for _, f := range opt.Families() {
		if n, _ := total.Of(f).Get(); n < 1000 {
			t.Errorf("only %d packets of %s were sent: too little to prove anything", n, f)
		}
	}
	t.Logf("sent %v; underlay %v, internet %v", total, l.Wire.Counts(), l.Uplink.Counts())
}

// noLeak fails the test when anything was in clear on either switch so far, or when the
// packet sockets could not have told.
func noLeak(t *testing.T, l *lab.Lab, history []string) {
	t.Helper()
	for _, w := range []*lab.Wire{l.Wire, l.Uplink} {
		within(t, w.Sync)
		if n := w.Counts()[lab.Clear]; n > 0 {
			t.Errorf("%d frames in clear: %s\nafter %s", n, strings.Join(w.Problems(), "\n"), strings.Join(history, "\n"))
		}
		if n, err := w.Missed(); n > 0 || err != nil {
			t.Errorf("the packet socket missed %d frames, %v", n, err)
		}
	}
}

// within gives fn a time limit and wants it to work.
func within(t *testing.T, fn func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), standLimit)
	defer cancel()
	if err := fn(ctx); err != nil {
		t.Fatal(err)
	}
}

// schedule is a random sequence of accidents.
type schedule struct {
	t       *testing.T
	l       *lab.Lab
	random  *rand.Rand
	running map[*lab.Node]bool
	torn    map[*lab.Node]string // the net that was taken away and not seen again since
	cut     map[*lab.Node]bool
	stored  bool // etcd runs
	history []string
}

func newSchedule(t *testing.T, l *lab.Lab, seed uint64) *schedule {
	s := &schedule{
		t: t, l: l, random: rand.New(rand.NewPCG(seed, 0)), stored: true,
		running: map[*lab.Node]bool{}, torn: map[*lab.Node]string{}, cut: map[*lab.Node]bool{},
	}
	for _, n := range l.Nodes {
		s.running[n] = true
	}
	return s
}

// accident is a kind of step. It reports false when the step makes no sense now.
type accident struct {
	name string
	do   func(s *schedule, n *lab.Node) bool
}

// accidents are the kinds of steps, all equally likely.
func accidents() []accident {
	return []accident{
		{"SIGKILL", func(s *schedule, n *lab.Node) bool { return s.end(n, syscall.SIGKILL) }},
		{"SIGTERM", func(s *schedule, n *lab.Node) bool { return s.end(n, syscall.SIGTERM) }},
		{"start", (*schedule).start},
		{"start", (*schedule).start},
		{"new key", (*schedule).newKey},
		{"delete link", func(s *schedule, n *lab.Node) bool { return s.shell(n, "ip link delete loden0") }},
		{"link down", func(s *schedule, n *lab.Node) bool { return s.shell(n, "ip link set dev loden0 down") }},
		{"kill engine", func(s *schedule, n *lab.Node) bool { return s.killEngine(n) }},
		{"flush routes", func(s *schedule, n *lab.Node) bool {
			return s.tear(n, "routes", "for f in -4 -6; do ip $f route flush proto 76; ip $f route flush type unreachable proto 76; done")
		}},
		{"flush rules", func(s *schedule, n *lab.Node) bool { return s.tear(n, "rules", "nft flush ruleset") }},
		{"flush addresses", func(s *schedule, n *lab.Node) bool { return s.shell(n, "ip addr flush dev loden0") }},
		{"stop or start etcd", func(s *schedule, _ *lab.Node) bool { return s.toggleStore() }},
		{"cut or heal cable", func(s *schedule, n *lab.Node) bool { return s.toggleCable(n) }},
	}
}

// step does a random step on a random node, and now and then gives it time to matter.
func (s *schedule) step() {
	s.t.Helper()
	all := accidents()
	for {
		n := s.l.Nodes[s.random.IntN(len(s.l.Nodes))]
		a := all[s.random.IntN(len(all))]
		if !a.do(s, n) {
			continue
		}
		s.history = append(s.history, fmt.Sprintf("%d: %s on %s", len(s.history), a.name, n.Name))
		break
	}
	select {
	case <-s.t.Context().Done():
	case <-time.After(time.Duration(s.random.IntN(120)) * time.Millisecond): // any moment will do
	}
}

func (s *schedule) end(n *lab.Node, sig syscall.Signal) bool {
	if !s.running[n] {
		return false
	}
	s.running[n] = false
	s.must(n.Stop(sig))
	return true
}

func (s *schedule) start(n *lab.Node) bool {
	if s.running[n] {
		return false
	}
	s.running[n] = true
	s.must(n.Start())
	return true
}

func (s *schedule) newKey(n *lab.Node) bool {
	return s.end(n, syscall.SIGTERM) && s.shell(n, "rm -f /var/lib/loden/private.key") && s.start(n)
}

// shell runs a command that may fail, for example because its object is gone already.
func (s *schedule) shell(n *lab.Node, command string) bool {
	_ = n.Run("sh", "-c", command+" 2>/dev/null")
	return true
}

func (s *schedule) killEngine(n *lab.Node) bool {
	pids, err := n.PIDs()
	s.must(err)
	for _, pid := range pids {
		line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		if strings.Contains(string(line), "\x00engine\x00") {
			number, err := strconv.Atoi(pid)
			s.must(err)
			_ = syscall.Kill(number, syscall.SIGKILL)
		}
	}
	return len(pids) > 0
}

// tear takes one net away. The other net must be there.
func (s *schedule) tear(n *lab.Node, net, command string) bool {
	if s.torn[n] != "" && s.torn[n] != net && !s.mended(n) {
		return false
	}
	s.torn[n] = net
	return s.shell(n, command)
}

// mended reports whether both nets of a node are there again.
func (s *schedule) mended(n *lab.Node) bool {
	out, _ := n.Output("sh", "-c", "ip -4 route show type unreachable proto 76; ip -6 route show type unreachable proto 76; iptables-save; ip6tables-save; nft list ruleset")
	v4, v6 := strings.Contains(out, "unreachable 10.244."), strings.Contains(out, "unreachable fd10:244:")
	return v4 && v6 && strings.Count(out, "loden guard-out 10.244.")+strings.Count(out, "loden guard-out fd10:") >= 2
}

func (s *schedule) toggleStore() bool {
	if s.stored = !s.stored; s.stored {
		s.must(s.l.Store.Start(s.t.Context()))
	} else {
		s.must(s.l.Store.Stop())
	}
	return true
}

func (s *schedule) toggleCable(n *lab.Node) bool {
	if s.cut[n] = !s.cut[n]; s.cut[n] {
		s.must(s.l.Cut(n))
	} else {
		s.must(s.l.Heal(n))
	}
	return true
}

// calm ends all that is still wrong.
func (s *schedule) calm() {
	s.t.Helper()
	if !s.stored {
		s.toggleStore()
	}
	for _, n := range s.l.Nodes {
		if s.cut[n] {
			s.toggleCable(n)
		}
		s.start(n)
	}
}

// control takes both nets away on a node: now both families must be seen in clear.
func (s *schedule) control() {
	s.t.Helper()
	n := s.l.Nodes[0]
	s.end(n, syscall.SIGKILL)
	s.shell(n, "nft flush ruleset; for f in -4 -6; do ip $f route flush proto 76; ip $f route flush type unreachable proto 76; done")
	sandboxtest.Until(s.t, standLimit, "frames in clear without guard and routes", func() error {
		if seen := s.l.Uplink.Clear(); seen.Len() < 2 {
			return fmt.Errorf("seen: %v", seen)
		}
		return nil
	})
}

func (s *schedule) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}
