package backend_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/sandbox/sandboxtest"
)

// flow is a stream of numbered datagrams from one node's overlay address to the other's.
type flow struct {
	name string
	sent int
	seen []bool
	gap  time.Duration // longest silence
}

func (f *flow) lost() (out []int) {
	for i := range f.sent {
		if !f.seen[i] {
			out = append(out, i)
		}
	}
	return out
}

// run sends every millisecond until stop is closed, but a second at least, and waits for
// the last.
func (f *flow) run(t *testing.T, from, to *node, family opt.Family, stop <-chan struct{}) {
	listen := func(n *node) (c *net.UDPConn) {
		a, _ := n.addresses().Of(family).Get()
		if err := n.Do(func() (err error) {
			c, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
			return err
		}); err != nil {
			t.Error(err)
		}
		return c
	}
	in, out := listen(to), listen(from)
	if in == nil || out == nil {
		return
	}
	defer in.Close()
	defer out.Close()
	_ = in.SetReadBuffer(4 << 20)
	f.seen = make([]bool, 1<<20)
	var group sync.WaitGroup
	group.Go(func() {
		b, last := make([]byte, 100), time.Now()
		for {
			if _, err := in.Read(b); err != nil {
				return
			}
			f.gap, last = max(f.gap, time.Since(last)), time.Now()
			f.seen[binary.BigEndian.Uint32(b)] = true
		}
	})
	b, began := make([]byte, 100), time.Now()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for stop != nil || f.sent < 1000 {
		select {
		case <-stop:
			stop = nil
		case <-tick.C:
			for ; f.sent < int(time.Since(began).Milliseconds()); f.sent++ {
				binary.BigEndian.PutUint32(b, uint32(f.sent))
				if _, err := out.WriteTo(b, in.LocalAddr()); err != nil {
					t.Errorf("send %d: %v", f.sent, err)
				}
			}
		}
	}
	_ = in.SetReadDeadline(time.Now().Add(time.Second))
	group.Wait()
}

// streams sends 1,000 packets a second each way in each family between two nodes, until the
// function it returns is called, which prints and gives what was lost.
func streams(t *testing.T, a, b *node) (end func() int) {
	t.Helper()
	stop := make(chan struct{})
	var group sync.WaitGroup
	var flows []*flow
	for _, family := range opt.Families() {
		for _, way := range [][2]*node{{a, b}, {b, a}} {
			f := &flow{name: fmt.Sprintf("%s node %d > %d", family, way[0].number, way[1].number)}
			flows = append(flows, f)
			group.Go(func() { f.run(t, way[0], way[1], family, stop) })
		}
	}
	return func() (lost int) {
		t.Helper()
		close(stop)
		group.Wait()
		for _, f := range flows {
			t.Logf("%s: sent %d, lost %d %v, longest silence %v", f.name, f.sent, len(f.lost()), f.lost()[:min(5, len(f.lost()))], f.gap)
			if f.sent < 1000 {
				t.Errorf("%s: only %d packets", f.name, f.sent)
			}
			lost += len(f.lost())
		}
		return lost
	}
}

// engineOn is an engine that is started as in a container: in the foreground.
type engineOn struct {
	*exec.Cmd
	log  *lines
	done chan struct{}
}

// relay starts an engine in the foreground. It is killed with the test.
func (n *node) relay(kind engine.Kind, wrap ...string) *engineOn {
	n.t.Helper()
	args := append(wrap, os.Args[0], "engine", iface, "--engine", string(kind), "--run-dir", runDir)
	e := &engineOn{Cmd: n.Command(n.t.Context(), args[0], args[1:]...), log: &lines{}, done: make(chan struct{})}
	e.Stderr = e.log
	if err := e.Start(); err != nil {
		n.t.Fatal(err)
	}
	go func() { defer close(e.done); _ = e.Wait() }()
	n.t.Cleanup(func() {
		_ = e.Process.Kill()
		<-e.done
		if n.t.Failed() {
			n.t.Logf("an engine of node %d said:\n%s", n.number, &e.log.text)
		}
	})
	return e
}

// says waits until the engine has said something a number of times.
func (e *engineOn) says(t *testing.T, what string, times int) {
	t.Helper()
	e.log.await(t, `"message":"`+what+`"}`, times)
}

// What an engine says.
const (
	started    = "engine started"
	standingBy = "standing by until the other engine ends"
	notTaken   = "not handed over: the other engine did not take it"
)

// handshakes is the time of the last one of a node's only peer.
func (n *node) handshakes() time.Time {
	n.t.Helper()
	if p := n.status().Peers; len(p) == 1 {
		return p[0].Handshake
	}
	n.t.Fatal("not one peer")
	return time.Time{}
}

// relayed makes two nodes whose engines of one kind stand, and connects them.
func relayed(t *testing.T, kind engine.Kind) (a, b *node, first *engineOn) {
	t.Helper()
	a, b = pair(t)
	first = a.relay(kind)
	first.says(t, started, 1)
	b.relay(kind).says(t, started, 1)
	a.start("auto")
	b.start("auto")
	connect(a, b, opt.V4)
	a.reaches(b)
	return a, b, first
}

func TestHandOverLosesNoPacket(t *testing.T) {
	a, b, e := relayed(t, engine.Loden)
	before := a.handshakes()
	end := streams(t, a, b)
	for i := range 6 {
		wrap := [][]string{nil, {"unshare", "--pid", "--fork", "--kill-child"}}[i%2] // also from another PID namespace
		next := a.relay(engine.Loden, wrap...)
		next.says(t, started, 1)
		e.says(t, standingBy, 1)
		if got := a.apply(opt.Some(a.config(b.peer(opt.V4)))); len(got) > 0 {
			t.Errorf("round %d: the new engine is not what the old one was: %q", i, got)
		}
		if i > 0 {
			_ = e.Process.Signal(syscall.SIGTERM) // ends one that stands by: nothing must come of it
		}
		e = next
	}
	if lost := end(); lost > 0 {
		t.Errorf("%d packets lost", lost)
	}
	if after := a.handshakes(); !after.Equal(before) {
		t.Errorf("a handshake at %v, the one before was at %v", after, before)
	}
}

func TestEngineGoesOnWhenNobodyTakesWhatItGives(t *testing.T) {
	a, b, e := relayed(t, engine.Loden)
	end := streams(t, a, b)
	for i := range 3 {
		taker, err := net.Dial("unixpacket", engine.ControlPath(a.Path(runDir), iface))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := taker.Write([]byte(`{"version":1,"do":"give","engine":"loden","state":1}`)); err != nil {
			t.Fatal(err)
		}
		if _, err := taker.Read(make([]byte, 4096)); err != nil { // everything is on its way
			t.Fatal(err)
		}
		_ = taker.Close() // as the kernel does for one that is killed
		e.says(t, notTaken, i+1)
		if got := a.apply(opt.Some(a.config(b.peer(opt.V4)))); len(got) > 0 {
			t.Errorf("round %d: the engine changed: %q", i, got)
		}
	}
	if lost := end(); lost > 0 {
		t.Errorf("%d packets lost", lost)
	}
}

func TestEngineThatStandsByTakesThePlaceBack(t *testing.T) {
	for _, kind := range []engine.Kind{engine.Loden, engine.WireGuardGo} {
		t.Run(string(kind), func(t *testing.T) {
			a, b, first := relayed(t, kind)
			second := a.relay(kind)
			second.says(t, started, 1)
			first.says(t, standingBy, 1)
			a.apply(opt.Some(a.config(b.peer(opt.V4)))) // wireguard-go cannot hand its state over
			a.reaches(b)
			_ = second.Process.Kill()
			first.says(t, started, 2)
			a.apply(opt.Some(a.config(b.peer(opt.V4))))
			a.reaches(b)
		})
	}
}

// holdLock holds an engine's lock for the time of the test, and names pid in it.
func holdLock(t *testing.T, path string, pid int) {
	t.Helper()
	text := fmt.Sprintf(`{"interface":"loden0","pid":%d,"engine":"loden"}`, pid)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Len: 2}); err != nil {
		t.Fatal(err)
	}
}

// TestNumberInTheLockFileIsNobodysDeath gives the lock to a process that names another's
// number, as an engine in a PID namespace of its own does.
func TestNumberInTheLockFileIsNobodysDeath(t *testing.T) {
	a := newNode(t, 1)
	bystander := exec.Command("sleep", "1000")
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- bystander.Wait() }()
	defer func() { _ = bystander.Process.Kill() }()
	holdLock(t, engine.LockPath(a.Path(runDir), iface), bystander.Process.Pid)
	a.start("wireguard-go")
	got := a.ask(request{Op: "apply", Want: opt.Some(a.config())})
	if !strings.Contains(got.Error, "end it where it was started") {
		t.Errorf("applied: %q %q", got.Changes, got.Error)
	}
	select {
	case err := <-ended:
		t.Errorf("somebody else's process was ended: %v", err)
	default:
	}
}

func TestEngineInAnotherPIDNamespaceIsEndedByOrder(t *testing.T) {
	a := newNode(t, 1)
	e := a.relay(engine.Loden, "unshare", "--pid", "--fork", "--kill-child")
	e.says(t, started, 1)
	if pid := a.engine().PID; pid > 2 {
		t.Fatalf("the engine calls itself %d: not in a namespace of its own", pid)
	}
	a.start("wireguard-go")
	got := a.apply(opt.Some(a.config()))
	if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, "start engine wireguard-go") }) {
		t.Errorf("changes: %q", got)
	}
	sandboxtest.Until(t, time.Minute, "the end of the engine", func() error {
		select {
		case <-e.done:
			return nil
		default:
			return errors.New("it runs")
		}
	})
}
