// Command dataplane measures userspace WireGuard engines beside each other: two hosts with
// a pod behind each, joined by one wire, the engine under test between them. Rounds are
// interleaved, so that what drifts hits all alike; what counts are ratios within one run.
//
//	pod1 ── host1 ══ engine ══ wire ══ engine ══ host2 ── pod2
//
//	dataplane                              throughput, latency, CPU, memory
//	dataplane -peers 100,1000,10000        what configured peers cost
//	dataplane -wireguard-go PROGRAM        beside plain wireguard-go, not the one inside loden
//
// It needs root, ip(8), wg(8), ethtool(8) and iperf3(1). Everything happens in a sandbox
// that leaves nothing behind.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/loden-net/loden/network/sandbox"
)

// options are the command line.
type options struct {
	loden, wireguardGo string
	rounds             int
	length             time.Duration // of one test
	tests              string
	maxSteal           float64 // per cent; rounds above are dropped
	v6                 bool    // outside as well as inside
	noSegmentation     bool    // real frames on the wire
	peers              string
}

func main() {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		exit(helper(os.Args[1], os.Args[2:])) // this program again, inside a pod or a host
	}
	if err := sandbox.Enter(); err != nil {
		exit(err)
	}
	var o options
	flag.StringVar(&o.loden, "loden", "bin/loden", "the program whose engines are measured")
	flag.StringVar(&o.wireguardGo, "wireguard-go", "", "plain wireguard-go, to compare with; empty: the one inside loden")
	flag.IntVar(&o.rounds, "rounds", 5, "rounds")
	flag.DurationVar(&o.length, "length", 3*time.Second, "of each test")
	flag.StringVar(&o.tests, "tests", "tcp1,tcp4,rtt,load,udp64", "what to measure")
	flag.Float64Var(&o.maxSteal, "steal", 10, "drop rounds in which the hypervisor took more than this, in per cent")
	flag.BoolVar(&o.v6, "ipv6", false, "IPv6 outside and inside")
	flag.BoolVar(&o.noSegmentation, "frames", false, "real frames on the wire: no segmentation offload")
	flag.StringVar(&o.peers, "peers", "", "measure so many configured peers instead, as in 100,1000,10000")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "dataplane:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run measures every contender in every round and prints each value and the medians.
func run(ctx context.Context, o options) error {
	contenders := contenders(o)
	if o.peers != "" {
		return runPeers(ctx, o, contenders)
	}
	results := newResults(o.maxSteal)
	for round := range o.rounds {
		for _, c := range contenders {
			if err := ctx.Err(); err != nil {
				return err
			}
			values, err := measure(ctx, o, c)
			if err != nil {
				return fmt.Errorf("measure %s: %w", c.name, err)
			}
			results.add(round, c.name, values)
		}
	}
	results.print(os.Stdout, contenders[0].name)
	return nil
}
