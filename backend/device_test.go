package backend_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
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
		"device: start engine wireguard-go of loden0",
		"device: set MTU 1420 of loden0",
		"device: add address 10.244.1.0/32 to loden0",
		"device: add address fd44:1::/128 to loden0",
		"device: set key and port 51820 of loden0",
		"device: add peer " + b.public().String() + " at 192.0.2.2:51820 for 10.244.2.0/24, fd44:2::/64",
		"device: set loden0 up",
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
			if len(got) != 4 || got[0] != "device: start engine wireguard-go of loden0" {
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
	if got := a.apply(none); !slices.Equal(got, []string{"device: delete loden0"}) {
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
	if got := a.apply(none); !slices.Equal(got, []string{"device: delete engine of loden0"}) {
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
