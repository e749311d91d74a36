package netfilter

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// fresh gives the test a network namespace of its own, which ends with it.
func fresh(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func shell(t *testing.T, script string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "sh", "-ec", script).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

func dial(t *testing.T) *Conn {
	t.Helper()
	c, err := Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestReadsWhatNftWrote(t *testing.T) {
	fresh(t)
	shell(t, `nft 'add table ip6 x; add counter ip6 x seen { packets 7 bytes 700; }
		add chain ip6 x inner; add chain ip6 x outer { type filter hook forward priority -5; policy drop; }
		add rule ip6 x outer ip6 saddr fd00::/8 counter jump inner comment "say why"; add rule ip6 x inner counter name "seen" drop'`)
	c := dial(t)
	chains, err := c.Chains(opt.V6, func(table string) bool { return table == "x" })
	want := []Chain{{Table: "x", Name: "inner"}, {Table: "x", Name: "outer", Type: "filter", Hook: 2, Priority: -5, Policy: 0}}
	if err != nil || fmt.Sprint(chains) != fmt.Sprint(want) {
		t.Errorf("chains %+v, %v; want %+v", chains, err, want)
	}
	rules, err := c.Rules(opt.V6, "x", "outer")
	if err != nil || len(rules) != 1 || rules[0].Comment != "say why" || rules[0].Target != "inner" || rules[0].Handle == 0 {
		t.Errorf("rules %+v, %v", rules, err)
	}
	if counters, err := c.Counters(opt.V6, "x"); err != nil || counters["seen"] != 7 {
		t.Errorf("counters %v, %v", counters, err)
	}
	if none, err := c.Chains(opt.V4, func(string) bool { return true }); err != nil || len(none) != 0 {
		t.Errorf("the other family: %v, %v", none, err)
	}
}

func TestBatchOfPastGenerationIsRefusedAsAWhole(t *testing.T) {
	fresh(t)
	shell(t, "nft 'add table ip x; add chain ip x c; add rule ip x c accept; add table ip y'")
	c := dial(t)
	generation, err := Generation()
	if err != nil {
		t.Fatal(err)
	}
	shell(t, "nft add table ip z")
	var b Batch
	b.FlushChain(opt.V4, "x", "c")
	b.DeleteChain(opt.V4, "x", "c")
	b.DeleteTable(opt.V4, "y")
	if err := b.Commit(generation); !errors.Is(err, ErrChanged) {
		t.Fatalf("want %v, got %v", ErrChanged, err)
	}
	if tables, err := c.Tables(opt.V4); err != nil || len(tables) != 3 {
		t.Errorf("tables: %v, %v", tables, err)
	}
	if generation, err = Generation(); err != nil {
		t.Fatal(err)
	}
	if err := b.Commit(generation); err != nil {
		t.Fatal(err)
	}
	tables, err := c.Tables(opt.V4)
	chains, err2 := c.Chains(opt.V4, func(string) bool { return true })
	if err != nil || err2 != nil || len(tables) != 2 || len(chains) != 0 {
		t.Errorf("left: %v %v, %v %v", tables, chains, err, err2)
	}
}

func TestFailedRemovalIsReportedAndTheSocketStaysUsable(t *testing.T) {
	fresh(t)
	c := dial(t)
	generation, err := Generation()
	if err != nil {
		t.Fatal(err)
	}
	var b Batch
	b.DeleteTable(opt.V4, "nosuch")
	b.DeleteTable(opt.V6, "nosuch")
	if err := b.Commit(generation); !errors.Is(err, unix.ENOENT) {
		t.Errorf("want %v, got %v", unix.ENOENT, err)
	}
	if _, err := c.Tables(opt.V4); err != nil {
		t.Error(err)
	}
}

func TestWatchTellsOncePerTransactionAndOnlyWhatConcerns(t *testing.T) {
	fresh(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	notices := make(chan struct{}, 100)
	done := make(chan error, 1)
	ready := make(chan error, 1)
	ns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ns)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		ready <- unix.Setns(ns, unix.CLONE_NEWNET)
		done <- Watch(ctx, func(table, _ string) bool { return table == "ours" }, func() { notices <- struct{}{} })
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	// The first notice shows that the watch is on.
	sandboxtest.Until(t, 20*time.Second, "the watch", func() error {
		shell(t, "nft add table ip ours; nft delete table ip ours")
		if len(notices) == 0 {
			return errors.New("no notice")
		}
		return nil
	})
	quiet(t, notices)
	shell(t, "nft add table ip theirs; nft flush table ip theirs")
	shell(t, "nft 'add table ip ours; add chain ip ours a; add rule ip ours a accept; add rule ip ours a drop; add table ip theirs2'")
	until(t, notices, 1)
	shell(t, "nft flush ruleset")
	until(t, notices, 2)
	if n := len(notices); n != 2 {
		t.Errorf("%d notices of two transactions", n)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// quiet waits until every notice of earlier changes was read.
func quiet(t *testing.T, notices <-chan struct{}) {
	t.Helper()
	sandboxtest.Until(t, 20*time.Second, "quiet", func() error {
		select {
		case <-notices:
			return errors.New("more")
		case <-time.After(100 * time.Millisecond):
			return nil
		}
	})
}

// until waits for n notices.
func until(t *testing.T, notices <-chan struct{}, n int) {
	t.Helper()
	sandboxtest.Until(t, 20*time.Second, "notices", func() error {
		if len(notices) < n {
			return fmt.Errorf("%d of %d", len(notices), n)
		}
		return nil
	})
}

// FuzzComment feeds the user data of rules of other programs, and answers of a kernel of another version.
func FuzzComment(f *testing.F) {
	f.Add([]byte{0, 4, 's', 'a', 'y', 0})
	f.Add([]byte{1, 200, 0})
	f.Add([]byte{2, 0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 9})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if c := comment(data); strings.ContainsRune(c, 0) {
			t.Errorf("%q", c)
		}
		generationOf(data)
		answer(syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: unix.NLMSG_ERROR}, Data: data})
	})
}
