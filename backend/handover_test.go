package backend_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/backend/engine/wg/state"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// engineOn is an engine that is started as in a container: in the foreground.
type engineOn struct {
	*exec.Cmd
	log  *lines
	done chan struct{}
}

// relay starts an engine in the foreground. It is killed with the test.
func (n *node) relay(kind engine.Kind, wrap ...string) *engineOn {
	n.t.Helper()
	return n.relayWithQueues(kind, 1, wrap...)
}

// relayWithQueues starts an engine that makes a TUN device with so many queues.
func (n *node) relayWithQueues(kind engine.Kind, queues int, wrap ...string) *engineOn {
	n.t.Helper()
	args := append(wrap, os.Args[0], "engine", iface, "--engine", string(kind), "--run-dir", runDir, "--queues", strconv.Itoa(queues))
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

// The lines of an engine's log.
const (
	started    = "engine started"
	standingBy = "standing by until the other engine ends"
	notTaken   = "not handed over: the other engine did not take it"
)

// handshakes is the time of the last handshake with the only peer of a node.
func (n *node) handshakes() time.Time {
	n.t.Helper()
	if p := n.status().Peers; len(p) == 1 {
		return p[0].Handshake
	}
	n.t.Fatal("not one peer")
	return time.Time{}
}

// relayed makes two nodes with running engines of the same kind, and connects them.
func relayed(t *testing.T, kind engine.Kind) (a, b *node, first *engineOn) {
	t.Helper()
	return relayedWithQueues(t, kind, 1)
}

func relayedWithQueues(t *testing.T, kind engine.Kind, queues int) (a, b *node, first *engineOn) {
	t.Helper()
	a, b = pair(t)
	first = a.relayWithQueues(kind, queues)
	first.says(t, started, 1)
	b.relayWithQueues(kind, queues).says(t, started, 1)
	a.start("auto")
	b.start("auto")
	connect(a, b, opt.V4)
	a.reaches(b)
	return a, b, first
}

func TestHandOverLosesNoPacket(t *testing.T) {
	for _, queues := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d queues", queues), func(t *testing.T) { handOver(t, queues) })
	}
}

func handOver(t *testing.T, queues int) {
	a, b, e := relayedWithQueues(t, engine.Loden, queues)
	before := a.handshakes()
	end := streams(t, a, b)
	for i := range 6 {
		wrap := [][]string{nil, {"unshare", "--pid", "--fork", "--kill-child"}}[i%2] // also from another PID namespace
		next := a.relayWithQueues(engine.Loden, 1+i%4, wrap...)                      // the handed over session counts
		next.says(t, started, 1)
		e.says(t, standingBy, 1)
		if got := a.queues(); got != queues {
			t.Fatalf("round %d: %d queues, want %d", i, got, queues)
		}
		if got := a.apply(opt.Some(a.config(b.peer(opt.V4)))); len(got) > 0 {
			t.Errorf("round %d: the new engine is not what the old one was: %q", i, got)
		}
		if i > 0 {
			_ = e.Process.Signal(syscall.SIGTERM) // ends an engine that stands by: the others must not notice
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
	t.Run("1 queue, an older taker", func(t *testing.T) {
		goOn(t, 1, fmt.Sprintf(`{"version":1,"do":"give","engine":"loden","state":%d}`, state.Version))
	})
	t.Run("4 queues", func(t *testing.T) {
		goOn(t, 4, fmt.Sprintf(`{"version":1,"do":"give","engine":"loden","state":%d,"queues":8}`, state.Version))
	})
}

func goOn(t *testing.T, queues int, order string) {
	a, b, e := relayedWithQueues(t, engine.Loden, queues)
	end := streams(t, a, b)
	for i := range 3 {
		taker, err := net.Dial("unixpacket", engine.ControlPath(a.Path(runDir), iface))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := taker.Write([]byte(order)); err != nil {
			t.Fatal(err)
		}
		if _, err := taker.Read(make([]byte, 4096)); err != nil { // everything is on its way
			t.Fatal(err)
		}
		_ = taker.Close() // as the kernel does for a killed process
		e.says(t, notTaken, i+1)
		if got := a.apply(opt.Some(a.config(b.peer(opt.V4)))); len(got) > 0 {
			t.Errorf("round %d: the engine changed: %q", i, got)
		}
	}
	if got := a.queues(); got != queues {
		t.Errorf("%d queues, want %d", got, queues)
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

// lockBy starts a process that holds the engine's lock, and writes another process's number
// into the file, as an engine in a PID namespace of its own does.
func lockBy(t *testing.T, path string, number int) (ended <-chan error) {
	t.Helper()
	text := fmt.Sprintf(`{"interface":"loden0","pid":%d,"engine":"loden"}`, number)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() // the process has its own descriptor of the same description
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Len: 2}); err != nil {
		t.Fatal(err)
	}
	return sleeper(t, f).ended
}

// sleeping is a process that does no work, and the channel that tells of its end.
type sleeping struct {
	*os.Process
	ended chan error
}

func sleeper(t *testing.T, files ...*os.File) sleeping {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.ExtraFiles = files
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	s := sleeping{cmd.Process, make(chan error, 1)}
	go func() { s.ended <- cmd.Wait() }()
	return s
}

func TestHolderOfTheLockIsEndedAndNeverTheNumberInItsFile(t *testing.T) {
	a := newNode(t, 1)
	bystander := sleeper(t)
	holder := lockBy(t, engine.LockPath(a.Path(runDir), iface), bystander.Pid)
	a.start("wireguard-go")
	a.apply(opt.Some(a.config()))
	select {
	case <-holder:
	case <-time.After(time.Minute):
		t.Error("the silent holder of the lock was not ended")
	}
	select {
	case err := <-bystander.ended:
		t.Errorf("the process whose number the file names was ended: %v", err)
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
