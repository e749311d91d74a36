// Command dataplane measures encrypted tunnels beside each other: two hosts with a pod
// behind each, joined by a wire, the contender between them.
//
//	pod1 ── host1 ══ engine ══ wire ══ engine ══ host2 ── pod2
//
// Every round builds a bed for each contender and runs test after test, each on all
// contenders in turn, so that a drift of the machine hits all alike; only ratios within a run
// count. A test during which the hypervisor took too much is run again.
//
//	dataplane -wireguard-go PROGRAM -nebula PROGRAM   everything, and a table of the bars
//	dataplane -loden a=OLD,b=NEW -tests tcp1,udp64 -rounds 3 -raw=false
//	dataplane -rounds 0 -profile tcp1                 where loden's time goes
//	dataplane -peers 100,1000,10000                   the cost of configured peers
//
// A test is tcp1, tcp4 (iperf3 with cubic), udp64, rtt (paced pings), pong (pings back to
// back), rr (a byte there and back between programs, over TCP), load (paced pings
// beside a stream), rss or bound, with conditions: tcp1.in6 (IPv6 inside), .out6 (outside),
// .v6 (both), .frames (real frames on the wire: no segmentation offload).
//
// It needs root, ip(8), wg(8), ethtool(8), iperf3(1), and perf(1) for profiles. Everything
// happens in a sandbox that is removed afterwards.
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

	"github.com/loden-net/loden/test/sandbox"
)

const allTests = "tcp1,tcp1.in6,tcp1.out6,tcp1.v6,tcp4,tcp1.frames,udp64,rtt,pong,rr,load,rss,bound"

// options are the command line.
type options struct {
	loden, wireguardGo, tailscale, nebula string
	wrapped, raw                          bool
	rounds, attempts                      int
	length                                time.Duration // of a test
	interval                              time.Duration // between pings
	quiet                                 time.Duration // how long to wait for an idle machine
	tests                                 string
	maxSteal                              float64 // per cent
	profile, profileDir                   string
	peers                                 string
}

func main() {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		exit(helper(os.Args[1], os.Args[2:])) // this program again, inside a pod or a host
	}
	if err := sandbox.Enter(); err != nil {
		exit(err)
	}
	o := parseFlags()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, o))
}

func parseFlags() (o options) {
	flag.StringVar(&o.loden, "loden", "bin/loden", "loden programs, as in PROGRAM or a=PROGRAM,b=PROGRAM")
	flag.StringVar(&o.wireguardGo, "wireguard-go", "", "plain wireguard-go; empty: without")
	flag.StringVar(&o.tailscale, "tailscale", "", "Tailscale's fork of wireguard-go; empty: without")
	flag.StringVar(&o.nebula, "nebula", "", "nebula, with nebula-cert beside it; empty: without")
	flag.BoolVar(&o.wrapped, "wrapped", false, "also the wireguard-go inside loden")
	flag.BoolVar(&o.raw, "raw", true, "also plain routes without a tunnel, which the bound needs")
	flag.IntVar(&o.rounds, "rounds", 5, "good rounds that each test shall have; as many again are run for what is missing")
	flag.IntVar(&o.attempts, "attempts", 3, "how often a test is tried in a round")
	flag.DurationVar(&o.length, "length", 3*time.Second, "of each test")
	flag.DurationVar(&o.interval, "interval", time.Millisecond, "between pings")
	flag.DurationVar(&o.quiet, "quiet", 3*time.Second, "how long to wait for an idle machine before each test")
	flag.StringVar(&o.tests, "tests", allTests, "what to measure, in this order")
	flag.Float64Var(&o.maxSteal, "steal", 10, "repeat tests during which the hypervisor took more than this, in per cent")
	flag.StringVar(&o.profile, "profile", "", "at the end, run this test with perf on loden's engines and print where the time goes")
	flag.StringVar(&o.profileDir, "profile-dir", "", "keep perf's data there")
	flag.StringVar(&o.peers, "peers", "", "measure so many configured peers instead, as in 100,1000,10000")
	flag.Parse()
	return o
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "dataplane:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// run measures in rounds, prints each value, the medians, the bars and the profile.
func run(ctx context.Context, o options) error {
	all, err := contenders(o)
	if err != nil {
		return err
	}
	if o.peers != "" {
		return runPeers(ctx, o, all)
	}
	tests, err := parseTests(o.tests)
	if err != nil {
		return err
	}
	r := newResults()
	for round := range 2 * o.rounds { // the second half repeats the tests that steal has spoiled
		todo := missing(r, all, tests, min(round+1, o.rounds))
		if len(todo) == 0 {
			continue
		}
		if err := runRound(ctx, o, round, todo, r); err != nil {
			return err
		}
	}
	if o.rounds > 0 {
		r.print(os.Stdout, all)
		printBars(os.Stdout, r, all)
	}
	if o.profile != "" {
		return runProfiles(ctx, o, all)
	}
	return nil
}

// job is a test of a contender.
type job struct {
	test test
	contender
}

// missing returns the jobs that have fewer than want good values, by test.
func missing(r *results, all []contender, tests []test, want int) (todo []job) {
	for _, t := range tests {
		for _, c := range all {
			if t.suits(c) && r.good(c.name, t.name) < want {
				todo = append(todo, job{t, c})
			}
		}
	}
	return todo
}
