// Command scale measures what a cluster of many nodes costs each of its nodes: a real node
// in a namespace beside synthetic leases in a real etcd, for each number of leases and for
// each subject in turn.
//
//	node: loden run, its engine ══ wire ══ far: etcd, and the sink of every lease's endpoint
//
// A join is a lease that appears in etcd. Its peer is configured when a packet from the node
// into the lease's subnet makes the engine send a handshake initiation to the lease's
// endpoint, where the sink notes the time. So the latency of a join is measured from outside
// and without a dump of the peers.
//
//	scale -loden old=OLD,new=NEW -wireguard-go PROGRAM -flannel   everything beside each other
//	scale -leases 1000,10000 -burst 20000 -idle 0s
//	scale -out docs/scale                                        the curves as SVG, and results.json
//
// The subject flannel is flannel's etcd manager: a process that follows the leases and keeps
// them in a map, and configures no peer. The subject wireguard-go is an engine alone: a
// program sets each peer in a UAPI request of its own. It needs root, ip(8) and wg(8);
// everything happens in a sandbox that is removed afterwards.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/loden-net/loden/test/sandbox"
)

// options are the command line.
type options struct {
	loden, wireguardGo, etcd string
	flannel                  bool
	leases                   string
	joins                    int // of each of the two phases at rate
	rate                     int // joins per second
	burst                    int
	idle                     time.Duration
	limit                    time.Duration // for a subject to settle after a phase
	out, dir                 string
}

func main() {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		exit(helper(os.Args[1], os.Args[2:])) // this program again, on the node's host
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
	flag.StringVar(&o.loden, "loden", "bin/loden", "loden programs, as in PROGRAM or old=PROGRAM,new=PROGRAM")
	flag.StringVar(&o.wireguardGo, "wireguard-go", "", "plain wireguard-go, the engine alone; empty: without")
	flag.BoolVar(&o.flannel, "flannel", false, "also flannel's etcd manager")
	flag.StringVar(&o.etcd, "etcd", "bin/etcd", "the etcd server")
	flag.StringVar(&o.leases, "leases", "100,300,1000,3000,10000,30000", "numbers of leases")
	flag.IntVar(&o.joins, "joins", 200, "joins of each phase: a phase for the cost, and a phase for the latency")
	flag.IntVar(&o.rate, "rate", 10, "joins per second in these phases")
	flag.IntVar(&o.burst, "burst", 1000, "joins at once; 0: no burst")
	flag.DurationVar(&o.idle, "idle", 20*time.Second, "how long the idle node is watched; 0: not")
	flag.DurationVar(&o.limit, "limit", 90*time.Second, "how long a subject may take to start or to settle")
	flag.StringVar(&o.out, "out", "", "directory for the curves and results.json; empty: only print")
	flag.StringVar(&o.dir, "dir", "", "directory on a disk for the node's state (default: a temporary directory)")
	flag.Parse()
	return o
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// helper runs a part of this program on the node's host: a follower with flannel's manager,
// or the configuration of an engine.
func helper(name string, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch {
	case name == "flannel" && len(args) == 2:
		return followFlannel(ctx, args[0], args[1])
	case name == "peers" && len(args) == 4:
		return configurePeers(args[0], args[1], args[2], args[3])
	}
	return fmt.Errorf("unknown helper %q", name)
}

// subject is a program under test beside a cluster of many leases.
type subject interface {
	name() string

	// measure fills the figures of a cluster of n leases.
	measure(ctx context.Context, o options, n int, v figures) error
}

// subjects returns the programs that the options name.
func subjects(o options) (all []subject, err error) {
	for word := range strings.SplitSeq(o.loden, ",") {
		name, program, named := strings.Cut(word, "=")
		if !named {
			name, program = "loden", word
		}
		if name == "" || program == "" {
			return nil, fmt.Errorf("-loden %q: want PROGRAM or NAME=PROGRAM", word)
		}
		all = append(all, node{title: name, program: program})
	}
	if o.flannel {
		all = append(all, manager{})
	}
	if o.wireguardGo != "" {
		all = append(all, engine{program: o.wireguardGo})
	}
	for i, s := range all {
		switch s := s.(type) {
		case node:
			s.program, err = program(s.program)
			all[i] = s
		case engine:
			s.program, err = program(s.program)
			all[i] = s
		}
		if err != nil {
			return nil, fmt.Errorf("subject %s: %w", s.name(), err)
		}
	}
	return all, nil
}

// program returns the absolute path of a program.
func program(name string) (string, error) {
	found, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(found)
}

// run measures every subject at every size and prints the results.
func run(ctx context.Context, o options) error {
	all, err := subjects(o)
	if err != nil {
		return err
	}
	if o.etcd, err = program(o.etcd); err != nil {
		return fmt.Errorf("find etcd: %w (make tools builds bin/etcd)", err)
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "loden-scale-"); err != nil {
			return err
		}
		defer os.RemoveAll(o.dir)
	}
	var r results
	for word := range strings.SplitSeq(o.leases, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 || n+2*o.joins+o.burst > maxLeases {
			return fmt.Errorf("-leases %q: want numbers from 1, with all joins at most %d", o.leases, maxLeases)
		}
		for _, s := range all {
			v := figures{}
			fmt.Printf("%s, %d leases\n", s.name(), n)
			if err := s.measure(ctx, o, n, v); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				fmt.Printf("  FAILED: %v\n", err) // the other subjects and sizes are measured all the same
			}
			r = append(r, result{s.name(), n, v})
			v.print(os.Stdout)
		}
	}
	r.print(os.Stdout)
	if o.out == "" {
		return nil
	}
	return errors.Join(r.save(o.out), r.draw(o.out))
}
