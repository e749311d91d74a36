package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox"
)

// options is the command line of the lab.
type options struct {
	nodes    int
	pods     int
	families string
	underlay string
	engines  []string
	extra    []string
	bin      string
	check    bool
	json     bool
	matrix   string
	page     string
	limit    time.Duration
}

func (o *options) flags(fs *pflag.FlagSet) {
	fs.IntVar(&o.nodes, "nodes", 3, "how many nodes")
	fs.IntVar(&o.pods, "pods", 2, "how many pods on each node")
	fs.StringVar(&o.families, "families", "dual", "address families of the pods: dual, ipv4, ipv6")
	fs.StringVar(&o.underlay, "underlay", "ipv4", "address family between the nodes: ipv4, ipv6")
	fs.StringSliceVar(&o.engines, "engine", nil, "--engine of the first node, the second, … and round again; \"mixed\" is kernel,loden")
	fs.StringArrayVar(&o.extra, "flag", nil, "further flag of every `loden run`, such as --flag=--firewall=nftables; may be given several times")
	fs.StringVar(&o.bin, "bin", "", "directory of the programs (default: that of loden-lab)")
	fs.BoolVar(&o.check, "check", false, "end with a verdict instead of staying up: exit status 0 or 1")
	fs.BoolVar(&o.json, "json", false, "print the verdict as JSON")
	fs.StringVar(&o.page, "page", "127.0.0.1:8081", "address on this machine for the page of node1, in a lab of up to 10 nodes that stays up; empty: none")
	fs.StringVar(&o.matrix, "matrix", "", "file that gets the matrix of all nodes, a character for each path")
	fs.DurationVar(&o.limit, "timeout", 0, "how long the cluster may take to stand (default: 2 minutes, and a second for each node)")
}

// lab returns the options of the library.
func (o *options) lab(report func(string)) (lab.Options, error) {
	bin := o.bin
	if bin == "" {
		self, err := os.Executable()
		if err != nil {
			return lab.Options{}, err
		}
		bin = filepath.Dir(self)
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		return lab.Options{}, err
	}
	engines := o.engines
	if len(engines) == 1 && engines[0] == "mixed" {
		engines = []string{"kernel", "loden"}
	}
	settings := lab.Options{
		Nodes: o.nodes, Pods: o.pods, Families: lab.Families(o.families), Underlay: lab.Families(o.underlay),
		Engines: engines, Flags: o.extra, Bin: bin, Report: report,
	}
	o.pageFlags(&settings)
	return settings, nil
}

// run builds the lab, shows it, and stays until ctx is done or the verdict is there.
func (o *options) run(ctx context.Context) (err error) {
	progress := &reporter{out: os.Stdout, start: time.Now()}
	if o.json {
		progress.out = os.Stderr
	}
	settings, err := o.lab(progress.line)
	if err == nil {
		err = settings.Validate()
	}
	if err != nil {
		return err
	}
	files, err := sandbox.EnterWith(o.openPage)
	if err != nil {
		return err
	}
	progress.line(fmt.Sprintf("%d nodes in namespaces of their own; nothing outlives this program", o.nodes))
	l, err := lab.New(settings)
	defer func() { err = errors.Join(err, l.Close()) }()
	if err != nil {
		return err
	}
	limit := o.limit
	if limit == 0 {
		limit = 2*time.Minute + time.Duration(o.nodes)*time.Second
	}
	standing, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := l.Up(standing); err != nil {
		return stopped(ctx, err)
	}
	if o.nodes > tableNodes {
		progress.line("every node asks every node by a pod of each, every pod asks the outside; a packet socket looks at the wires")
	} else {
		progress.line("every pod asks every pod and the outside; a packet socket looks at the wires")
	}
	verdict := l.Check(ctx)
	if ctx.Err() != nil {
		return nil
	}
	processes, size := lab.Memory()
	progress.line(fmt.Sprintf("checked; %d processes have %.1f GB of memory, shared pages counted once", processes, float64(size)/1e9))
	if err := o.print(os.Stdout, l, verdict); err != nil {
		return err
	}
	if o.check {
		return failed(verdict)
	}
	page, err := servePage(ctx, l, files)
	if err != nil {
		return err
	}
	return stay(ctx, l, page)
}

// print shows the verdict.
func (o *options) print(w io.Writer, l *lab.Lab, v lab.Verdict) error {
	if o.matrix != "" {
		if err := os.WriteFile(o.matrix, []byte(matrix(l, v)), 0o644); err != nil {
			return fmt.Errorf("write the matrix: %w", err)
		}
	}
	if o.json {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	_, err := io.WriteString(w, table(l, v))
	return err
}

// stay prints how to look closer and waits for ctx. On a terminal it draws the live table meanwhile.
func stay(ctx context.Context, l *lab.Lab, page string) error {
	env := fmt.Sprintf("PATH=%s:%s/cni:%s\nETCDCTL_ENDPOINTS=%s\nLODEN_ETCD_ENDPOINTS=%s\n",
		l.Bin, l.Bin, os.Getenv("PATH"), l.Store.Endpoint(), l.Store.Endpoint())
	if err := os.WriteFile(settingsFile, []byte(env), 0o600); err != nil {
		return err
	}
	fmt.Print(page, hints())
	var err error
	if _, ok := terminal(os.Stdout); ok {
		err = live(ctx, l, os.Stdout, func() int { rows, _ := terminal(os.Stdout); return rows })
	}
	if err == nil {
		<-ctx.Done()
	}
	fmt.Println("\nremoving everything")
	return err
}

// failed turns a verdict into an exit status; its problems have been printed.
func failed(v lab.Verdict) error {
	if v.OK {
		return nil
	}
	return fmt.Errorf("%d problems", len(v.Problems))
}

// stopped returns nil instead of an error that the user caused by Ctrl-C.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// reporter prints progress with the time since the start.
type reporter struct {
	start time.Time

	mu  sync.Mutex // guards out
	out io.Writer
}

func (r *reporter) line(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.out, "%6.1fs  %s\n", time.Since(r.start).Seconds(), strings.TrimRight(text, "\n"))
}
