package system_test

import (
	"context"
	"encoding/json"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// named is the longest time within which a fault between two nodes must have a name.
const named = 30 * time.Second

// judged is a path to a peer as `loden status --json` shows it.
type judged struct {
	Family, State, Reason, Remedy string

	MTU  int
	Loss float64
	RTT  float64   `json:"rttP50Seconds"`
	At   time.Time `json:"since"`
}

// pathsFrom returns the paths from a node to a peer.
func pathsFrom(n *lab.Node, peer string) ([]judged, error) {
	out, err := n.Loden("status", "--json") // the exit status says that a path is bad
	var rep struct {
		Peers []struct {
			Node  string
			Paths []judged
		}
	}
	if json.Unmarshal([]byte(out), &rep) != nil {
		return nil, fmt.Errorf("status: %q, %w", out, err)
	}
	for _, p := range rep.Peers {
		if p.Node == peer {
			return p.Paths, nil
		}
	}
	return nil, fmt.Errorf("no peer %s in %s", peer, out)
}

// untilState waits until every path from a node to a peer has a state, and returns the time that
// it took.
func untilState(t testing.TB, n *lab.Node, peer, state string, limit time.Duration) time.Duration {
	t.Helper()
	started := time.Now()
	sandboxtest.Until(t, limit, fmt.Sprintf("%s to call the paths to %s %s", n.Name, peer, state), func() error {
		paths, err := pathsFrom(n, peer)
		if err != nil {
			return err
		}
		if len(paths) == 0 {
			return fmt.Errorf("no path")
		}
		for _, p := range paths {
			if p.State != state {
				return fmt.Errorf("it says %+v", p)
			}
		}
		return nil
	})
	return time.Since(started)
}

// onWire drops WireGuard's datagrams that arrive at a node and fit, until the returned function.
func onWire(t testing.TB, n *lab.Node, match ...string) func() {
	t.Helper()
	rule := append([]string{"PREROUTING", "-p", "udp", "--dport", "51820"}, append(match, "-j", "DROP")...)
	must := func(verb string) {
		if err := n.Run("iptables", append([]string{"-w", "-t", "raw", verb}, rule...)...); err != nil {
			t.Error(err)
		}
	}
	must("-I")
	return func() { must("-D") }
}

// upPaths makes a lab and waits until every path is up, with its MTU measured.
func upPaths(t testing.TB, o lab.Options) *lab.Lab {
	t.Helper()
	l := newLab(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), standLimit)
	defer cancel()
	if err := l.Up(ctx); err != nil {
		t.Fatal(err)
	}
	healthy(t, l)
	return l
}

// healthy waits until every path of a lab is up.
func healthy(t testing.TB, l *lab.Lab) {
	t.Helper()
	for _, from := range l.Nodes {
		for _, to := range l.Nodes {
			if from != to {
				untilState(t, from, to.Name, "up", named)
			}
		}
	}
}

// quick is the interval of the probes in these tests: the waits of a path that breaks stay as
// they are, and the time until the next question becomes short.
const quick = "2s"

func TestFaultsBetweenNodesAreNamed(t *testing.T) {
	l := upPaths(t, lab.Options{Nodes: 6, Engines: []string{"loden", "wireguard-go"}, Flags: []string{"--probe-interval", quick}})
	a, mute, split, narrow, dead := l.Nodes[0], l.Nodes[1], l.Nodes[2], l.Nodes[3], l.Nodes[4]
	address := func(n *lab.Node) string { return n.Underlay.V4.String() }
	large := []string{"-m", "length", "--length", "1400:"}

	healers := []func(){
		onWire(t, mute, "-s", address(a)), // UDP in one direction
		onWire(t, split, "-s", address(a)), onWire(t, a, "-s", address(split)),
		onWire(t, narrow, append([]string{"-s", address(a)}, large...)...), onWire(t, a, append([]string{"-s", address(narrow)}, large...)...),
	}
	if err := l.Cut(dead); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	for _, c := range []struct {
		fault      string
		from, peer *lab.Node
		state      string
	}{
		{"datagrams above 1400 bytes are dropped", a, narrow, "mtu"},
		{"the peer does not hear", a, mute, "one-way"},
		{"the peer is not heard, and a third node says that it hears", mute, a, "one-way"},
		{"UDP is dropped in both directions", a, split, "down"},
		{"the host of the peer is dead", a, dead, "down"},
		{"none", a, l.Nodes[5], "up"},
		{"none", split, l.Nodes[5], "up"},
	} {
		untilState(t, c.from, c.peer.Name, c.state, named)
		t.Logf("%s: %s calls %s %s after %v", c.fault, c.from.Name, c.peer.Name, c.state, time.Since(started).Round(time.Second/10))
	}
	for _, heal := range healers {
		heal()
	}
	if err := l.Heal(dead); err != nil {
		t.Fatal(err)
	}
	healthy(t, l)
}

// A daemon that restarts or has ended leaves the data path as it is: that is no fault of a
// path, nor is a peer that does not probe at all.
func TestPeerWithoutADaemonOrWithoutProbesIsNoFalseAlarm(t *testing.T) {
	l := upPaths(t, lab.Options{Nodes: 2, Flags: []string{"--probe-interval", quick}})
	a, b := l.Nodes[0], l.Nodes[1]
	stay := func(what string) {
		t.Helper()
		end := time.Now().Add(18 * time.Second)
		sandboxtest.Until(t, named, "18 seconds without an alarm", func() error {
			paths, err := pathsFrom(a, b.Name)
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range paths {
				if p.State != "up" {
					t.Fatalf("%s: %+v", what, p)
				}
			}
			if time.Now().Before(end) {
				return fmt.Errorf("it is too early: %+v", paths)
			}
			return nil
		})
	}
	if err := b.Stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	stay("its daemon is killed")
	if err := b.Start("--probe-interval", "0"); err != nil {
		t.Fatal(err)
	}
	stay("it does not probe")
}
