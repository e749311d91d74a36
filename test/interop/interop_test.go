// Package interop_test owns the proof that loden's engine and other programs understand
// each other on real interfaces: the steps of WireGuard's own test of two namespaces, which tests a
// single implementation, with our engine beside each other program, either side beginning, over IPv4 and
// IPv6; floods that make cookies necessary; and wires that lose and reorder. It knows all of
// them by their command lines, wg(8) and the messages that they put on the wire.
//
// `make test` builds the programs first; with plain `go test` run `make interop-programs`.
package interop_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// atOnce is how many pairs of machines are tried at a time: most of their time they wait.
const atOnce = 16

func TestMain(m *testing.M) {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		_ = flag.Set("test.parallel", fmt.Sprint(atOnce)) // a number is taken
	}
	sandboxtest.Main(m)
}

// engine is an implementation that carries an interface.
type engine struct {
	name    string
	program string // below bin; none: the kernel itself
	words   []string
	lacks   lack
}

// lack lists the features that a program does not have, though the kernel has them. The steps test the rest.
type lack struct {
	icmp bool // telling the sender of a packet that it is not carried
	down bool // closing sockets and sessions when the interface goes down: it is not noticed (seen on Linux 6.18)
	roam bool // following a peer that moves: Tailscale's own program tells it where peers are
}

var (
	ours     = engine{name: "loden", program: "loden", words: []string{"engine", "--log-level", "warn", "--engine", "loden", "wg0"}}
	upstream = engine{name: "wireguard-go", program: "bench/wireguard-go", words: []string{"-f", "wg0"}, lacks: lack{icmp: true, down: true}}
	fork     = engine{name: "Tailscale's fork", program: "interop/wireguard-tailscale", words: []string{"-f", "wg0"},
		lacks: lack{icmp: true, down: true, roam: true}}
	inKernel = engine{name: "kernel WireGuard"}
)

// others returns the implementations beside loden's engine: two programs or, with
// LODEN_INTEROP_WITH=kernel, the kernel, which must have WireGuard then.
func others(t *testing.T) []engine {
	t.Helper()
	switch with := os.Getenv("LODEN_INTEROP_WITH"); with {
	case "":
		return []engine{upstream, fork}
	case "kernel":
		return []engine{inKernel}
	default:
		t.Fatalf("LODEN_INTEROP_WITH=%s is not known", with)
		return nil
	}
}

// families name the IP outside of the tunnel.
var families = map[string]bool{"IPv4": false, "IPv6": true}

// everyPair runs a test with our engine beside each other engine, each of them as the side that
// begins, over both families, all at once.
func everyPair(t *testing.T, test func(t *testing.T, p *pair)) {
	t.Helper()
	for _, other := range others(t) {
		for _, roles := range [][2]engine{{ours, other}, {other, ours}} {
			for outside, v6 := range families {
				t.Run(fmt.Sprintf("%s to %s over %s", roles[0].name, roles[1].name, outside), func(t *testing.T) {
					t.Parallel()
					test(t, newPair(t, roles[0], roles[1], v6))
				})
			}
		}
	}
}

func TestStepsOfWireGuardsOwnTest(t *testing.T) {
	t.Parallel()
	everyPair(t, func(t *testing.T, p *pair) {
		for _, step := range []struct {
			name string
			run  func(*testing.T, *pair)
		}{
			{"the first one begins", begins},
			{"packets of every size", sizes},
			{"preshared key", preshared},
			{"new private key", newKey},
			{"peer removed and added", removed},
			{"allowed addresses", visited},
			{"roaming", roaming},
			{"persistent keepalive", keepalive},
			{"replay", replay},
			{"interface down and up", downAndUp},
			{"nowhere to go", nowhere},
		} {
			if !t.Run(strings.ReplaceAll(step.name, " ", "_"), func(t *testing.T) { step.run(t, p) }) {
				return // the next steps build on it
			}
		}
	})
}
