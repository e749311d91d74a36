package backend

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
)

// fakeNode is a Device on a host in memory.
type fakeNode struct {
	t *testing.T
	*Fake
	device *Device
	key    PrivateKey
	want   Config
}

// newFakeNode returns a node whose interface stands, with the peers.
func newFakeNode(t *testing.T, f *Fake, peers ...Peer) *fakeNode {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	n := &fakeNode{t: t, Fake: f, key: key, want: Config{Port: 51820, MTU: 1420, Peers: sorted.Of(peers...)}}
	n.open()
	n.apply()
	return n
}

// open opens the device anew, as a daemon does that starts.
func (n *fakeNode) open() {
	n.t.Helper()
	n.openAs("auto")
}

// openAs opens the device anew with an engine asked for.
func (n *fakeNode) openAs(engineName string) {
	n.t.Helper()
	d, err := n.Device(Options{Name: "loden0", Engine: engineName, RunDir: n.t.TempDir(), Log: zerolog.New(zerolog.NewTestWriter(n.t))})
	if err != nil {
		n.t.Fatal(err)
	}
	n.device = d
}

// apply makes the changes, proves that a second look finds none, and returns their text.
func (n *fakeNode) apply() []string {
	n.t.Helper()
	made := n.run(n.changes(opt.Some(n.want)))
	if again := n.changes(opt.Some(n.want)); len(again) > 0 {
		n.t.Fatalf("after %q a second look finds %q", made, again)
	}
	return made
}

func (n *fakeNode) changes(want opt.Option[Config]) []diff.Change {
	n.t.Helper()
	changes, err := n.device.Changes(n.t.Context(), n.key, want)
	if err != nil {
		n.t.Fatal(err)
	}
	return changes
}

func (n *fakeNode) run(changes []diff.Change) (made []string) {
	n.t.Helper()
	for _, c := range changes {
		if err := c.Run(n.t.Context()); err != nil {
			n.t.Fatalf("%s: %v", c, err)
		}
		made = append(made, c.String())
	}
	return made
}

func TestHungEngineIsEndedAndReplacedWithinTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t, NewFake(), Peer{Key: key(2)})
		n.Hang(false)
		begun := time.Now()
		got := n.apply()
		want := []string{
			"device: end hung engine loden of loden0: it gave no answer",
			"device: start engine loden of loden0",
			"device: set key and port 51820 of loden0",
			"device: add peer " + key(2).String(),
		}
		if !slices.Equal(got, want) {
			t.Errorf("changes\ngot  %q\nwant %q", got, want)
		}
		if took := time.Since(begun); took > 8*time.Second { // 3 s at most until the probe has told it
			t.Errorf("replaced after %v", took)
		}
		if s, err := n.device.Status(t.Context()); err != nil || s.Replaced != 1 || s.Silent || !s.Up {
			t.Errorf("status: %+v, %v", s, err)
		}
	})
}

func TestBusyEngineIsGivenTimeUntilItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t, NewFake())
		n.Hang(true)
		answer := time.AfterFunc(20*time.Second, n.Answer)
		defer answer.Stop()
		if got := n.apply(); len(got) != 0 {
			t.Errorf("an engine that is busy for 20 s causes %q", got)
		}
		n.Hang(true)
		if got := n.apply(); len(got) == 0 || !strings.Contains(got[0], "end hung engine") {
			t.Errorf("an engine that is busy without end causes %q", got)
		}
		if n.device.replaced.Load() != 1 {
			t.Errorf("replaced %d engines, want 1", n.device.replaced.Load())
		}
	})
}

func TestHungEngineStopsNeitherStatusNorStartNorRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t, NewFake(), Peer{Key: key(2)})
		n.Hang(false)
		begun := time.Now()
		s, err := n.device.Status(t.Context())
		if took := time.Since(begun); err != nil || !s.Silent || s.Up || !s.Exists || s.EnginePID != 1 || took > 2*time.Second {
			t.Errorf("status after %v: %+v, %v", took, s, err)
		}
		begun = time.Now()
		n.open()
		if err := n.device.Check(t.Context()); err != nil || time.Since(begun) > 0 {
			t.Errorf("check after %v: %v", time.Since(begun), err)
		}
		n.run(n.changes(opt.None[Config]()))
		if took := time.Since(begun); took > 0 || n.owner.Present() || n.link.Present() || n.files {
			t.Errorf("removed after %v: %+v", took, n.Fake)
		}
	})
}

func TestKernelThatTakesLongIsNoHungEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode(t, NewFake().Kernel())
		n.Hang(false)
		time.AfterFunc(20*time.Second, n.Answer)
		if got := n.apply(); len(got) != 0 {
			t.Errorf("changes: %q", got)
		}
	})
}

func TestWatchTellsOfAnEngineThatStopsAnswering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		dialled := false
		dial := func(context.Context) (net.Conn, error) {
			if dialled {
				return nil, io.ErrClosedPipe
			}
			dialled = true
			return ours, nil
		}
		events := make(chan time.Time, 99)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			watchEngine(ctx, dial, func() { events <- time.Now() })
		}()
		var answering atomic.Bool
		answering.Store(true)
		served := make(chan struct{})
		go func() {
			defer close(served)
			lines := bufio.NewReader(theirs)
			for {
				first, err := lines.ReadString('\n')
				if err != nil {
					return
				}
				second, _ := lines.ReadString('\n')
				if first+second != emptySet {
					t.Errorf("the engine is asked %q", first+second)
				}
				if answering.Load() {
					_, _ = io.WriteString(theirs, "errno=0\n\n")
				}
			}
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(events) > 0 {
			t.Error("an engine that answers causes an event")
		}
		answering.Store(false)
		hung := time.Now()
		if at := <-events; at.Sub(hung) > probeEvery+probeWithin {
			t.Errorf("the first event came %v after the hang", at.Sub(hung))
		}
		_ = theirs.Close() // the engine ends
		synctest.Wait()
		if len(events) != 1 {
			t.Errorf("%d events at the end of the engine, want 1", len(events))
		}
		cancel()
		<-ended
		<-served
	})
}

func TestCPUTimeIsReadWhateverTheNameOfTheProgram(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"7 (loden) S 1 7 7 0 -1 4194560 2 0 0 0 12 30 0 0 20 0 9 0 5 6 7":   420 * time.Millisecond,
		"7 (a) b (c) R 1 7 7 0 -1 4194560 2 0 0 0 1 0 0 0 20 0 9 0 5 6 7 8": 10 * time.Millisecond,
	} {
		if got, ok := parseCPUTime(text); !ok || got != want {
			t.Errorf("%q: got %v, %t, want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "7 (loden", "7 (loden) S 1 7", "7 (loden) S 1 7 7 0 -1 4194560 2 0 0 0 x 30 0"} {
		if got, ok := parseCPUTime(text); ok {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func FuzzCPUTime(f *testing.F) {
	f.Add("7 (loden) S 1 7 7 0 -1 4194560 2 0 0 0 12 30 0 0 20 0 9 0 5 6 7")
	f.Fuzz(func(t *testing.T, text string) {
		if used, ok := parseCPUTime(text); used < 0 || !ok && used != 0 {
			t.Errorf("%q: got %v, %t", text, used, ok)
		}
	})
}

func TestLockHolderIsTheProcessThatHasTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if got := lockHolder("/proc", path); got != 0 {
		t.Errorf("process %d holds a file without a lock", got)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	if got := lockHolder("/proc", path); got != 0 {
		t.Errorf("process %d, which must not be this process, %d", got, os.Getpid())
	}
	child := exec.Command("sleep", "100") // inherits the lock and keeps it, as an engine does
	child.ExtraFiles = []*os.File{file}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	_ = file.Close()
	if got := lockHolder("/proc", path); got != child.Process.Pid {
		t.Errorf("process %d, want %d", got, child.Process.Pid)
	}
}
