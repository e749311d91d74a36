package backend_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/sandbox/sandboxtest"
)

var none = opt.None[backend.Config]()

func TestTwoNodesReachEachOtherOverEveryUnderlay(t *testing.T) {
	for _, family := range opt.Families() {
		t.Run(family.String(), func(t *testing.T) {
			a, b := pair(t)
			a.start("wireguard-go")
			b.start("auto")
			connect(a, b, family)
			a.reaches(b)
			b.reaches(a)
			if out := a.must("wg", "show", iface); !strings.Contains(out, b.public().String()) {
				t.Errorf("wg show does not list the peer:\n%s", out)
			}
			s := b.status()
			if !s.Exists || !s.Up || s.Port != 51820 || s.MTU != 1420 || s.PublicKey != b.public().String() {
				t.Errorf("status: %+v", s)
			}
			if len(s.Peers) != 1 || s.Peers[0].Handshake.IsZero() || s.Peers[0].Received == 0 || !s.Peers[0].Endpoint.Present() {
				t.Errorf("status of the peer: %+v", s.Peers)
			}
		})
	}
}

func TestPresharedKeyIsSetChangedAndTakenAway(t *testing.T) {
	a, b := pair(t)
	a.start("auto")
	b.start("auto")
	first, second := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	for _, psk := range [][]byte{first, second, nil} {
		a.psk, b.psk = psk, psk
		connect(a, b, opt.V4)
		a.reaches(b)
		shown := strings.Fields(a.must("wg", "show", iface, "preshared-keys"))[1]
		want := "(none)"
		if psk != nil {
			want = base64.StdEncoding.EncodeToString(psk)
		}
		if shown != want {
			t.Errorf("pre-shared key %s, want %s", shown, want)
		}
	}
}

func TestFirstApplyNamesEveryStepInOrder(t *testing.T) {
	a, b := pair(t)
	a.start("wireguard-go")
	b.start("wireguard-go")
	got := a.apply(opt.Some(a.config(b.peer(opt.V4))))
	want := []string{
		"link: start engine wireguard-go of loden0",
		"link: set MTU 1420 of loden0",
		"link: add address 10.244.1.0/32 to loden0",
		"link: add address fd44:1::/128 to loden0",
		"link: set key and port 51820 of loden0",
		"peers: add peer " + b.public().String() + " at 192.0.2.2:51820 for 10.244.2.0/24, fd44:2::/64",
		"link: set loden0 up",
	}
	if !slices.Equal(got, want) {
		t.Errorf("changes\ngot  %q\nwant %q", got, want)
	}
}

func TestInterfaceOutlivesItsEngineAndTheNextOneTakesItOver(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			a, b := pair(t)
			a.start("wireguard-go")
			b.start("wireguard-go")
			connect(a, b, opt.V4)
			a.reaches(b)
			before, routes := interfaceOf(a), routesOf(a)
			first := a.engine().PID

			a.killEngine(signal)

			if dead := interfaceOf(a); dead != before {
				t.Errorf("without an engine the interface is\n%s\nbefore it was\n%s", dead, before)
			}
			if dead := routesOf(a); dead != routes {
				t.Errorf("without an engine the routes are\n%s\nbefore they were\n%s", dead, routes)
			}
			got := a.apply(opt.Some(a.config(b.peer(opt.V4))))
			if len(got) != 3 || got[0] != "link: start engine wireguard-go of loden0" {
				t.Errorf("repair: %q", got)
			}
			if again := interfaceOf(a); again != before {
				t.Errorf("with a new engine the interface is\n%s\nbefore it was\n%s", again, before)
			}
			if a.engine().PID == first {
				t.Error("the engine is the old one")
			}
			a.reaches(b)
			b.reaches(a)
		})
	}
}

// interfaceOf prints addresses and MTU, without the flags that follow the carrier.
func interfaceOf(n *node) string {
	return n.must("sh", "-c", "ip -o addr show dev "+iface+"; ip link show dev "+iface+" | grep -o 'mtu [0-9]*'")
}

// routesOf prints the routes into the tunnel without the flag that follows the carrier.
func routesOf(n *node) string {
	out := n.must("ip", "route", "show", "dev", iface) + n.must("ip", "-6", "route", "show", "dev", iface)
	return strings.ReplaceAll(strings.ReplaceAll(out, "linkdown ", ""), " linkdown", "")
}

func TestDeletedInterfaceEndsItsEngineAndIsMadeAgain(t *testing.T) {
	a, b := pair(t)
	a.start("wireguard-go")
	b.start("wireguard-go")
	connect(a, b, opt.V6)
	a.reaches(b)
	a.must("ip", "link", "delete", iface)
	a.engineGone()
	a.apply(opt.Some(a.config(b.peer(opt.V6))))
	a.route()
	a.reaches(b)
	if log := readLog(t, a); strings.Contains(log, "panic") || strings.Contains(log, "error") {
		t.Errorf("the engine's log:\n%s", log)
	}
}

func TestRemovalLeavesTheHostAsItWasFound(t *testing.T) {
	a, b := pair(t)
	before := hostState(a)
	a.start("auto")
	b.start("auto")
	connect(a, b, opt.V4)
	a.reaches(b)
	pid := a.engine().PID
	if got := a.apply(none); !slices.Equal(got, []string{"link: delete loden0"}) {
		t.Errorf("changes: %q", got)
	}
	sandboxtest.Until(t, time.Minute, "the end of the engine's process", func() error {
		a.ask(request{Op: "plan"}) // a look collects children that ended
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal %d: %v", pid, err)
		}
		return nil
	})
	if after := hostState(a); after != before {
		t.Errorf("after the removal:\n%s\nbefore:\n%s", after, before)
	}
}

func TestRemovalClearsUpAfterAnEngineThatDied(t *testing.T) {
	a := newNode(t, 1)
	before := hostState(a)
	a.start("wireguard-go")
	a.apply(opt.Some(a.config()))
	a.killEngine(syscall.SIGKILL)
	a.must("ip", "link", "delete", iface)
	if got := a.apply(none); !slices.Equal(got, []string{"link: delete engine of loden0"}) {
		t.Errorf("changes: %q", got)
	}
	if after := hostState(a); after != before {
		t.Errorf("after the removal:\n%s\nbefore:\n%s", after, before)
	}
}

// hostState prints links, addresses, routes and the files of the engine.
func hostState(n *node) string {
	return n.must("sh", "-c", `ip -br link; ip -br addr | sed 's/ fe80[^ ]*//'; ip route; ls /run/wireguard /run/loden`)
}

func TestControlProcessAdoptsWhatItFinds(t *testing.T) {
	a, b := pair(t)
	a.start("auto")
	b.start("auto")
	connect(a, b, opt.V4)
	a.reaches(b)
	pid := a.engine().PID
	a.kill()
	a.start("auto")
	if got := a.apply(opt.Some(a.config(b.peer(opt.V4)))); len(got) != 0 {
		t.Errorf("a new control process changes %q", got)
	}
	if s := a.status(); s.EnginePID != pid || s.Reason != "loden0 is a TUN device already" {
		t.Errorf("engine %d, status %+v", pid, s)
	}
}

func TestRestartsOfTheControlProcessLoseNoPacket(t *testing.T) {
	a, b := pair(t)
	a.start("auto")
	b.start("auto")
	connect(a, b, opt.V4)
	a.reaches(b)
	// By count, not by a signal at the end: then ping waits for the last answers.
	stream := a.Command(t.Context(), "ping", "-q", "-i", "0.001", "-c", "5000", "10.244.2.0")
	out := &strings.Builder{}
	stream.Stdout = out
	if err := stream.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stream.Wait() }()
	for restarts := 0; ; restarts++ {
		select {
		case err := <-ended:
			if err != nil || restarts < 2 || !strings.Contains(out.String(), " 0% packet loss") {
				t.Errorf("%d restarts, %v, ping says\n%s", restarts, err, out)
			}
			return
		default:
		}
		if restarts%2 == 0 {
			a.kill()
		} else {
			a.close()
		}
		a.start("auto")
		a.apply(opt.Some(a.config(b.peer(opt.V4))))
	}
}

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
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second call finds the first one still waiting
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
	if got := a.apply(opt.Some(c)); !slices.Equal(got, []string{"link: set key and port 51999 of loden0"}) {
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
