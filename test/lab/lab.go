package lab

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox"
)

// Lab is a cluster. New makes it, Close removes it.
type Lab struct {
	Options
	Nodes    []*Node
	Store    *Store
	Outside  *Outside
	Wire     *Wire // the frames on the underlay
	Uplink   *Wire // the frames on the way to the outside
	underlay *sandbox.Switch
	internet *sandbox.Switch

	stop     context.CancelFunc // ends the goroutines of this process
	watchers sync.WaitGroup
}

// New makes the hosts and the wires between them, and starts to look at the wires. No
// program runs yet: see Up. The caller closes the lab, also after an error.
func New(o Options) (*Lab, error) {
	l := &Lab{Options: o, stop: func() {}}
	if err := o.Validate(); err != nil {
		return l, err
	}
	for _, program := range []string{"loden", "loden-cni", "etcd", "cni/bridge", "cni/host-local"} {
		if err := readable(l.Program(program)); err != nil {
			return l, fmt.Errorf("find programs: %w (make build leaves them in bin/)", err)
		}
	}
	var err error
	if l.underlay, err = sandbox.NewSwitch("underlay"); err != nil {
		return l, err
	}
	if l.internet, err = sandbox.NewSwitch("internet"); err != nil {
		return l, err
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	if err := errors.Join(l.newStore(), l.newOutside(ctx)); err != nil {
		return l, err
	}
	if err := errors.Join(l.newNodes(), l.acquaint()); err != nil {
		return l, err
	}
	return l, l.watch(ctx)
}

// newNodes makes the nodes' hosts, a few at a time.
func (l *Lab) newNodes() error {
	nodes := make([]*Node, l.Options.Nodes)
	var group errgroup.Group
	group.SetLimit(4)
	for i := range nodes {
		group.Go(func() (err error) {
			nodes[i], err = l.newNode(i)
			return err
		})
	}
	err := group.Wait()
	l.Nodes = slices.DeleteFunc(nodes, func(n *Node) bool { return n == nil })
	return err
}

// Program returns the path of a program of the lab.
func (l *Lab) Program(name string) string { return filepath.Join(l.Bin, name) }

// report tells the user of a step.
func (l *Lab) report(format string, args ...any) {
	if l.Report != nil {
		l.Report(fmt.Sprintf(format, args...))
	}
}

func (l *Lab) newStore() error {
	host, err := sandbox.NewHost("store")
	if err != nil {
		return err
	}
	addrs := addresses(underlay(), l.Underlay, storeNumber)
	l.Store = &Store{Host: host, program: l.Program("etcd")}
	for _, a := range addrs.All() {
		l.Store.Addr = a.Addr()
	}
	return plug(l.underlay, host, "eth0", addrs)
}

// watch starts to look at both switches.
func (l *Lab) watch(ctx context.Context) (err error) {
	if l.Wire, err = newWire(l.underlay, l.Store.Host, "eth0", onUnderlay); err != nil {
		return err
	}
	if l.Uplink, err = newWire(l.internet, l.Outside.Host, "eth0", onInternet); err != nil {
		return err
	}
	for _, w := range []*Wire{l.Wire, l.Uplink} {
		l.watchers.Go(func() { w.run(ctx) })
	}
	return nil
}

// Up starts etcd, writes the network document, starts the daemon on every node and
// attaches the pods. It blocks until all that stands.
func (l *Lab) Up(ctx context.Context) error {
	if err := l.Store.Start(ctx); err != nil {
		return err
	}
	l.report("etcd answers on %s", l.Store.Endpoint())
	if err := l.Put(Document(l.Families)); err != nil {
		return err
	}
	l.report("network document written: %s overlay over an %s underlay", l.Families, l.Underlay.List()[0])
	return l.UpNodes(ctx)
}

// UpNodes starts the daemon on every node and attaches the pods: on all nodes at once in a small lab,
// on a few nodes at a time in a large lab, so that no program waits for the processor until its
// time limits end.
func (l *Lab) UpNodes(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(smallLab)
	for _, n := range l.Nodes {
		group.Go(func() error { return n.up(ctx) })
	}
	return group.Wait()
}

// up starts the daemon and attaches the node's pods.
func (n *Node) up(ctx context.Context) error {
	if err := n.Start(); err != nil {
		return err
	}
	if err := n.Ready(ctx); err != nil {
		return err
	}
	env, err := n.Env()
	if err != nil {
		return err
	}
	n.lab.report("%s stands: pods get %s, MTU %d", n.Name, join(env.Subnets), env.MTU)
	for range n.lab.Options.Pods {
		pod, err := n.attach(ctx)
		if err != nil {
			return err
		}
		n.lab.report("%s attached: %s", pod.Name, join(pod.Addrs))
	}
	return nil
}

// join lists the values of both families.
func join[T fmt.Stringer](d opt.Dual[T]) string {
	text := ""
	for _, v := range d.All() {
		if text != "" {
			text += ", "
		}
		text += v.String()
	}
	return text
}

// Close ends every process of the lab and removes its hosts and wires.
func (l *Lab) Close() error {
	l.stop()
	l.watchers.Wait()
	var errs []error
	hosts := l.hosts()
	errs = append(errs, sandbox.KillAll(hosts...), l.closeHosts(hosts))
	for _, w := range []*Wire{l.Wire, l.Uplink} {
		if w != nil {
			errs = append(errs, w.tap.Close())
		}
	}
	for _, s := range []*sandbox.Switch{l.underlay, l.internet} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// closeHosts removes hosts, a few at a time.
func (l *Lab) closeHosts(hosts []*sandbox.Host) error {
	errs := make([]error, len(hosts))
	var group errgroup.Group
	group.SetLimit(4)
	for i, h := range hosts {
		group.Go(func() error {
			errs[i] = h.Close()
			return nil
		})
	}
	return errors.Join(append(errs, group.Wait())...)
}

// hosts returns every host of the lab, pods first.
func (l *Lab) hosts() []*sandbox.Host {
	var out []*sandbox.Host
	for _, n := range l.Nodes {
		for _, p := range n.Pods {
			out = append(out, p.Host)
		}
	}
	for _, n := range l.Nodes {
		out = append(out, n.Host)
	}
	if l.Store != nil {
		out = append(out, l.Store.Host)
	}
	if l.Outside != nil {
		out = append(out, l.Outside.Host)
	}
	return out
}
