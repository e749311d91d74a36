package backend_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

func TestEngineThatLostItsSocketIsReplaced(t *testing.T) {
	a := newNode(t, 1)
	a.start("wireguard-go")
	a.apply(opt.Some(a.config()))
	pid := a.engine().PID
	a.must("rm", engine.SocketPath(iface))
	a.apply(opt.Some(a.config()))
	if a.engine().PID == pid {
		t.Error("the engine that nobody can speak to is still there")
	}
}

func TestEngineThatHangsDoesNotHangItsOwner(t *testing.T) {
	a := newNode(t, 1)
	a.start("wireguard-go")
	a.apply(opt.Some(a.config()))
	pid := a.engine().PID
	freeze(t, pid)
	for range 2 { // the second call finds the first call still waiting
		got := a.ask(request{Op: "plan", Want: opt.Some(a.config()), Limit: 200 * time.Millisecond})
		if !strings.Contains(got.Error, "deadline exceeded") {
			t.Errorf("got %q %q", got.Changes, got.Error)
		}
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	a.apply(opt.Some(a.config()))
}

// freeze stops every thread of a process, which stands for a process that hangs.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Until(t, time.Minute, "a stopped process", func() error {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		for _, thread := range threads {
			text, failed := os.ReadFile(thread)
			if failed == nil && !strings.Contains(string(text), ") T ") {
				return errors.New(string(text))
			}
		}
		return err
	})
}

func TestStoppedEngineIsReplacedOrRemovedByRealProcesses(t *testing.T) {
	for _, kind := range []string{"loden", "wireguard-go"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel() // it waits most of the time
			a := newNode(t, 1)
			a.start(kind)
			a.apply(opt.Some(a.config()))
			hung := a.engine().PID
			freeze(t, hung)
			begun := time.Now()
			a.kill() // the daemon ends as well: the next daemon knows the state of the kernel only
			a.start(kind)
			if got := a.ask(request{Op: "check"}); got.Error != "" {
				t.Errorf("check: %s", got.Error)
			}
			if s := a.status(); !s.Silent || s.Up || !s.Exists {
				t.Errorf("status of the hung engine: %+v", s)
			}
			a.must("rm", engine.ControlPath(runDir, iface)) // the holder of the lock is found all the same
			a.apply(opt.Some(a.config()))
			if took := time.Since(begun); took > 10*time.Second || a.engine().PID == hung {
				t.Errorf("after %v the engine is process %d, the hung engine was %d", took, a.engine().PID, hung)
			}
			if s := a.status(); s.Replaced != 1 || s.Silent || !s.Up {
				t.Errorf("status of the new engine: %+v", s)
			}
			freeze(t, a.engine().PID)
			begun = time.Now()
			a.apply(none)
			if took := time.Since(begun); took > 10*time.Second {
				t.Errorf("removed after %v", took)
			}
			a.engineGone()
		})
	}
}

func TestPortInUseIsOneClearErrorAndNothingChanges(t *testing.T) {
	for _, network := range []string{"udp4", "udp6"} {
		t.Run(network, func(t *testing.T) {
			a := newNode(t, 1)
			before := hostState(a)
			a.start("auto")
			var taken net.PacketConn
			if err := a.Do(func() (err error) {
				taken, err = net.ListenPacket(network, ":51820")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer taken.Close()
			got := a.ask(request{Op: "apply", Want: opt.Some(a.config())})
			if want := "UDP port 51820: " + backend.ErrPortTaken.Error(); got.Error != want || len(got.Changes) > 0 {
				t.Errorf("got %q %q, want %q", got.Changes, got.Error, want)
			}
			if after := hostState(a); after != before {
				t.Errorf("the host changed to\n%s\nfrom\n%s", after, before)
			}
		})
	}
}

func TestPortCanBeChangedAndATakenOneIsRefusedLater(t *testing.T) {
	a := newNode(t, 1)
	a.start("auto")
	a.apply(opt.Some(a.config()))
	c := a.config()
	c.Port = 51999
	if got := a.apply(opt.Some(c)); !slices.Equal(got, []string{"device: set key and port 51999 of loden0"}) {
		t.Errorf("changes: %q", got)
	}
	if s := a.status(); s.Port != 51999 {
		t.Errorf("port %d", s.Port)
	}
}

func TestHostWithoutTUNIsOneClearErrorAndNothingChanges(t *testing.T) {
	a := newNode(t, 1)
	before := hostState(a)
	a.start("wireguard-go", "unshare", "--mount", "sh", "-c", `mount -t tmpfs none /dev/net && exec "$0" "$@"`)
	want := "open /dev/net/tun: no such file or directory (load the driver with `modprobe tun`; in a container, pass the device in with --device /dev/net/tun)"
	if got := a.ask(request{Op: "check"}); got.Error != want {
		t.Errorf("check: %q", got.Error)
	}
	if got := a.ask(request{Op: "apply", Want: opt.Some(a.config())}); got.Error != want || len(got.Changes) > 0 {
		t.Errorf("apply: %q %q", got.Changes, got.Error)
	}
	if got := a.apply(none); len(got) > 0 {
		t.Errorf("removing nothing: %q", got)
	}
	if after := hostState(a); after != before {
		t.Errorf("the host changed to\n%s\nfrom\n%s", after, before)
	}
}

func TestInterfaceOfAnotherKindIsLeftAlone(t *testing.T) {
	a := newNode(t, 1)
	a.must("ip", "link", "add", iface, "type", "bridge")
	a.start("auto")
	got := a.ask(request{Op: "apply", Want: opt.Some(a.config())})
	want := "interface loden0 exists and is of kind bridge, not WireGuard: remove it with `ip link delete loden0`, or choose another name with --interface"
	if got.Error != want || len(got.Changes) > 0 {
		t.Errorf("got %q %q", got.Changes, got.Error)
	}
	if got := a.apply(none); len(got) > 0 {
		t.Errorf("removal of somebody else's bridge: %q", got)
	}
	a.must("ip", "link", "show", iface)
}

func TestAskingForTheKernelWithoutOneIsAClearError(t *testing.T) {
	a := newNode(t, 1)
	a.start("kernel")
	got := a.ask(request{Op: "apply", Want: opt.Some(a.config())})
	if want := "the kernel has no WireGuard: `modprobe wireguard`, or choose --engine auto"; got.Error != want {
		t.Errorf("got %q %q", got.Changes, got.Error)
	}
}

func TestWatchSeesTheEndOfTheEngineAndChangesOfTheInterface(t *testing.T) {
	a := newNode(t, 1)
	a.start("auto")
	a.apply(opt.Some(a.config()))
	watch := a.Command(t.Context(), os.Args[0], "watch", iface)
	out := &lines{}
	watch.Stdout = out
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = watch.Process.Kill(); _ = watch.Wait() }()
	out.await(t, "watching", 1)
	// The first round also waits until the watch holds its connection to the engine.
	for round, event := range []func(){
		func() { a.must("ip", "link", "set", iface, "mtu", "1400") },
		func() { a.killEngine(syscall.SIGKILL) },
		func() { a.apply(opt.Some(a.config())) },
		func() { a.must("ip", "addr", "flush", "dev", iface) },
		func() { a.must("ip", "link", "delete", iface) },
		func() { a.apply(opt.Some(a.config())) },
	} {
		seen := out.count("changed")
		event()
		sandboxtest.Until(t, time.Minute, "a notification", func() error {
			if out.count("changed") == seen {
				return errors.New("none in round " + string(rune('0'+round)))
			}
			return nil
		})
	}
}

func TestEndedEngineIsCollectedAtTheNextLook(t *testing.T) {
	a := newNode(t, 1)
	a.start("auto")
	a.apply(opt.Some(a.config()))
	pid := a.engine().PID
	a.killEngine(syscall.SIGKILL)
	sandboxtest.Until(t, time.Minute, "the end of the engine's process", func() error {
		a.ask(request{Op: "plan", Want: opt.Some(a.config())})
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal %d: %v", pid, err)
		}
		return nil
	})
}

func TestSignalsInAnyOrderNeverPanicOrLeak(t *testing.T) {
	a := newNode(t, 1)
	a.start("auto")
	for _, signals := range [][]syscall.Signal{
		{syscall.SIGTERM}, {syscall.SIGKILL}, {syscall.SIGTERM, syscall.SIGTERM},
		{syscall.SIGTERM, syscall.SIGKILL}, {syscall.SIGINT, syscall.SIGTERM},
	} {
		a.apply(opt.Some(a.config()))
		pid := a.engine().PID
		for _, s := range signals {
			_ = syscall.Kill(pid, s)
		}
		a.engineGone()
	}
	a.apply(opt.Some(a.config()))
	if log := readLog(t, a); strings.Contains(log, "panic") || strings.Contains(log, "goroutine") {
		t.Errorf("the engine's log:\n%s", log)
	}
	sandboxtest.Until(t, time.Minute, "the end of all engines but one", func() error {
		if out := a.must("pgrep", "-fc", "^[^ ]+ engine "+iface); strings.TrimSpace(out) != "1" {
			return fmt.Errorf("engines running: %s", out)
		}
		return nil
	})
}

func readLog(t *testing.T, n *node) string {
	t.Helper()
	b, err := os.ReadFile(n.Path(runDir + "/" + iface + ".log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// After a crash the peer still sends by the session that the engine lost. Before the new engine
// began a handshake by itself, that went on for 15 s.
func TestPacketsOfAPeerArriveAtOnceAfterACrash(t *testing.T) {
	for _, kind := range []string{"loden", "wireguard-go"} {
		t.Run(kind, func(t *testing.T) {
			a, b := pair(t)
			a.start(kind)
			b.start(kind)
			connect(a, b, opt.V4)
			b.reaches(a)
			a.killEngine(syscall.SIGKILL)
			a.apply(opt.Some(a.config(b.peer(opt.V4))))
			sandboxtest.Until(t, 3*time.Second, "an answer to the peer", func() error {
				return b.Run("ping", "-c1", "-W1", a.addresses().V4.Or(netip.Addr{}).String())
			})
		})
	}
}

func TestStatusTellsOfAnEndpointThatTheKernelRoutesIntoTheTunnel(t *testing.T) {
	a, b := pair(t)
	a.start("loden")
	b.start("loden")
	looped := b.peer(opt.V4)
	looped.Endpoint = netip.MustParseAddrPort("10.244.2.9:51820")
	want := opt.Some(a.config(looped))
	a.apply(want)
	a.route()
	a.ask(request{Op: "plan", Want: want})
	if s := a.status(); len(s.Problems) != 1 || !strings.Contains(s.Problems[0].Reason, "endpoint 10.244.2.9:51820 is routed into the tunnel itself") {
		t.Errorf("problems: %+v", s.Problems)
	}
	a.must("ip", "route", "add", "10.244.2.9/32", "via", "192.0.2.2")
	a.ask(request{Op: "plan", Want: want})
	if s := a.status(); len(s.Problems) != 0 {
		t.Errorf("problems after the remedy: %+v", s.Problems)
	}
}

func TestInterfaceGetsIPv6WhereNewInterfacesBeginWithoutIt(t *testing.T) {
	a := newNode(t, 1)
	a.must("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
	a.start("loden")
	a.apply(opt.Some(a.config()))
	if out := a.must("ip", "-6", "addr", "show", "dev", iface); !strings.Contains(out, "fd44:1::/128") {
		t.Errorf("addresses:\n%s", out)
	}
}
