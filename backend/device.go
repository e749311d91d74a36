package backend

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
)

// Options say which interface, and how it may be made.
type Options struct {
	Name       string // of the interface: loden0
	Engine     string // auto, kernel, wireguard-go or loden; "" means auto
	RunDir     string // where the userspace engine keeps its lock and its log
	Executable string // what runs as `EXECUTABLE engine NAME`; "" means this program
	Log        zerolog.Logger
}

// Device is one WireGuard interface, which need not exist. Its methods may be called from
// several goroutines, but only one at a time should run changes. It remembers nothing that
// it did: what is there is what the kernel and the engine say.
type Device struct {
	name   string
	choice choice
	links  *netlink.Handle
	wg     *wireguard
	engine *engineProcess
}

// Open looks at the host and decides whether the kernel or a userspace engine does the
// work. It changes nothing, except that asking for WireGuard makes a kernel load its
// module. The interface and the engine outlive the Device; the caller closes it.
func Open(o Options) (*Device, error) {
	links, err := netlink.NewHandle(unix.NETLINK_ROUTE) // the others may not be in the kernel
	if err != nil {
		return nil, fmt.Errorf("open interface %s: %w", o.Name, err)
	}
	d := &Device{name: o.Name, links: links, engine: newEngineProcess(o)}
	if d.choice, err = d.choose(o); err == nil {
		d.wg, err = openWireguard()
	}
	if err != nil {
		links.Close()
		return nil, fmt.Errorf("open interface %s: %w", o.Name, err)
	}
	return d, nil
}

// choose asks the host what choose needs to know.
func (d *Device) choose(o Options) (choice, error) {
	link, err := readLink(d.links, o.Name)
	if err != nil {
		return choice{}, err
	}
	owner, running, err := engine.Running(o.RunDir, o.Name)
	if err != nil {
		return choice{}, err
	}
	f := facts{asked: o.Engine, link: link}
	if running {
		f.engine = opt.Some(Kind(owner.Kind))
	}
	f.kernel, err = kernelWireGuard()
	if err != nil {
		return choice{}, err
	}
	return choose(o.Name, f)
}

// Close releases what the Device holds open. It does not touch the interface.
func (d *Device) Close() error {
	d.links.Close()
	return d.wg.close()
}

// Name returns the name of the interface.
func (d *Device) Name() string { return d.name }

// Kind returns who does the work.
func (d *Device) Kind() Kind { return d.choice.kind }

// Reason returns why, for a log line or a status: "the kernel has no WireGuard".
func (d *Device) Reason() string { return d.choice.reason }

// state is what is there.
type state struct {
	link   opt.Option[link]
	wg     opt.Option[live]         // nothing while no engine answers
	engine opt.Option[engine.Owner] // nothing in kernel mode, or while none runs
}

// look lists the link, the engine and WireGuard.
func (d *Device) look(ctx context.Context) (state, error) {
	var s state
	var err error
	if s.link, err = readLink(d.links, d.name); err != nil {
		return s, err
	}
	owner, running, err := engine.Running(d.engine.runDir, d.name)
	if err != nil {
		return s, err
	}
	if running {
		s.engine = opt.Some(owner)
	}
	s.wg, err = d.wg.device(ctx, d.name)
	return s, err
}

// Changes returns what is to be done to make the interface, its key and its peers as
// wanted, in order; nothing wanted means no interface, no engine and no files of ours. It
// lists and compares, and changes nothing. After its changes ran it returns none. It fails,
// naming the remedy, where the host cannot hold such an interface.
func (d *Device) Changes(ctx context.Context, key PrivateKey, want opt.Option[Config]) ([]diff.Change, error) {
	d.engine.reap()
	have, err := d.look(ctx)
	if err != nil {
		return nil, err
	}
	c, ok := want.Get()
	if !ok {
		return d.removal(have), nil
	}
	if err := d.possible(have); err != nil {
		return nil, err
	}
	if err := portFree(ctx, have, c.Port); err != nil {
		return nil, err
	}
	changes, have := d.creation(have)
	link, _ := have.link.Get() // the zero link is one that was just made
	wg, _ := have.wg.Get()
	changes = append(changes, d.linkChanges(link, c)...)
	changes = append(changes, d.wgChanges(wg, key, c)...)
	return append(changes, d.upChanges(link, c)...), nil
}

// Check reports why the host cannot hold the interface, in one line with the remedy, or
// nil. It is what Changes checks before it promises anything.
func (d *Device) Check(ctx context.Context) error {
	have, err := d.look(ctx)
	if err != nil {
		return err
	}
	return d.possible(have)
}

// possible reports what stands in the way of the interface.
func (d *Device) possible(have state) error {
	if l, ok := have.link.Get(); ok && !l.ours() {
		return fmt.Errorf("interface %s exists and is of kind %s, not WireGuard: "+
			"remove it with `ip link delete %s`, or choose another name with --interface", d.name, l.kind, d.name)
	}
	if d.choice.kind == Kernel {
		return d.choice.missing
	}
	if have.wg.Present() { // an engine runs, so there is a TUN driver
		return d.choice.missing
	}
	return errors.Join(d.choice.missing, engine.CheckTUN())
}

// creation returns the changes after which the interface exists and answers, and what is
// known of it then: the zero link is a new one.
func (d *Device) creation(have state) ([]diff.Change, state) {
	var changes []diff.Change
	if l, ok := have.link.Get(); ok && d.wrongKind(l) {
		changes = append(changes, d.deletion("another kind of WireGuard is wanted"))
		have = state{}
	}
	if d.choice.kind == Kernel {
		if !have.link.Present() {
			changes = append(changes, diff.Change{Part: "link", Verb: "add", Object: d.name + " (kernel WireGuard)", Run: d.addKernelLink})
		}
		return changes, have
	}
	owner, running := have.engine.Get()
	if have.wg.Present() && have.link.Present() && (!running || Kind(owner.Kind) == d.choice.kind) {
		return changes, have
	}
	kind := engine.Kind(d.choice.kind)
	start := func(ctx context.Context) error { return d.engine.start(ctx, kind) }
	changes = append(changes, diff.Change{Part: "link", Verb: "start", Object: fmt.Sprintf("engine %s of %s", kind, d.name), Run: start})
	have.wg = opt.None[live]()
	return changes, have
}

// wrongKind reports whether the link is of the kind that is not wanted.
func (d *Device) wrongKind(l link) bool { return (l.kind == kernelLink) != (d.choice.kind == Kernel) }

// removal returns the changes after which nothing of ours is there.
func (d *Device) removal(have state) []diff.Change {
	if l, ok := have.link.Get(); ok && l.ours() {
		return []diff.Change{d.deletion("")}
	}
	if have.engine.Present() || d.engine.leftovers() {
		return []diff.Change{{Part: "link", Verb: "delete", Object: "engine of " + d.name, Run: d.engine.clear}}
	}
	return nil
}

// deletion returns the change that deletes the interface and waits for its engine's end.
func (d *Device) deletion(why string) diff.Change {
	object := d.name
	if why != "" {
		object += ": " + why
	}
	return diff.Change{Part: "link", Verb: "delete", Object: object, Run: func(ctx context.Context) error {
		return errors.Join(d.deleteLink(), d.engine.clear(ctx))
	}}
}
