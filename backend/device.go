package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
)

// Options say which interface a Device owns, and how the interface may be made.
type Options struct {
	Name       string // of the interface: loden0
	Engine     string // auto, kernel, wireguard-go or loden; "" means auto
	RunDir     string // directory in which the userspace engine keeps its lock and its log
	NoOffload  string // offloads that a started engine leaves off: see engine.ParseOffloads; "" means none
	Executable string // program that runs as `EXECUTABLE engine NAME`; "" means this program
	Log        zerolog.Logger
}

// Device is a WireGuard interface, which need not exist. Its methods may be called from
// several goroutines, but only one goroutine at a time should run changes.
type Device struct {
	name     string
	choice   choice
	host     host
	log      zerolog.Logger
	replaced atomic.Uint64 // engines that were ended because they hung
	sessions sessions
	problems atomic.Pointer[[]Problem] // nil before the first Changes
}

// Open examines the host and decides whether the kernel or a userspace engine encrypts. It
// changes no state of the host, except that the question for WireGuard makes a kernel load
// its module. The interface and the engine outlive the Device; the caller closes it.
func Open(o Options) (*Device, error) {
	h, err := openHost(o)
	if err != nil {
		return nil, fmt.Errorf("open interface %s: %w", o.Name, err)
	}
	kernel, err := kernelWireGuard()
	if err == nil {
		var d *Device
		if d, err = newDevice(o, h, kernel); err == nil {
			return d, nil
		}
	}
	h.links.close()
	return nil, fmt.Errorf("open interface %s: %w", o.Name, errors.Join(err, h.tunnels.close()))
}

// newDevice chooses the data path of a Device by the state of the host. kernel says that the
// kernel has WireGuard.
func newDevice(o Options, h host, kernel bool) (*Device, error) {
	link, err := h.links.observe(o.Name)
	if err != nil {
		return nil, err
	}
	owner, _, err := h.engines.observe()
	if err != nil {
		return nil, err
	}
	f := facts{asked: o.Engine, kernel: kernel, link: link}
	if running, ok := owner.Get(); ok {
		f.engine = opt.Some(Kind(running.Kind))
	}
	c, err := choose(o.Name, f)
	if err != nil {
		return nil, err
	}
	return &Device{name: o.Name, choice: c, host: h, log: o.Log}, nil
}

// Close releases the sockets of the Device. It does not touch the interface.
func (d *Device) Close() error {
	d.host.links.close()
	return d.host.tunnels.close()
}

// Kind returns the data path of the interface.
func (d *Device) Kind() Kind { return d.choice.kind }

// Reason returns why this data path was chosen, for a log line or a status: "the kernel has
// no WireGuard".
func (d *Device) Reason() string { return d.choice.reason }

// state is the device as it was observed.
type state struct {
	link   opt.Option[link]
	wg     opt.Option[live]         // none while no engine answers
	engine opt.Option[engine.Owner] // none in kernel mode, or without a running engine
	files  bool                     // a dead engine left files
	hung   bool                     // the engine runs, and neither answers nor makes progress
}

// observe lists the link, the engine and WireGuard. It takes hungAfter at most where the
// engine hangs.
func (d *Device) observe(ctx context.Context) (s state, err error) {
	if s, err = d.observeHost(); err != nil {
		return s, err
	}
	if !s.engine.Present() {
		s.wg, err = d.host.tunnels.device(ctx, d.name)
		return s, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, 1)
	go func() { // ends with ctx
		wg, err := d.host.tunnels.device(ctx, d.name)
		answers <- answer{wg, err}
	}()
	a, ok := await(ctx, answers, d.host.engines.progress)
	if !ok || errors.Is(a.err, errNoAnswer) { // without answers it is of no use, even when it makes progress
		s.hung = true
		return s, nil
	}
	s.wg = a.wg
	return s, a.err
}

// observeHost lists the link and the engine, which takes no answer of an engine.
func (d *Device) observeHost() (s state, err error) {
	if s.link, err = d.host.links.observe(d.name); err != nil {
		return s, err
	}
	s.engine, s.files, err = d.host.engines.observe()
	return s, err
}

// Changes returns the steps that make the interface, its key and its peers as desired, in
// order. No desired configuration means no interface, no engine and no files of Loden. Changes
// lists and compares, and changes no state. After its steps ran it returns none. It fails,
// with the remedy in the error, where the host cannot hold the interface.
func (d *Device) Changes(ctx context.Context, key PrivateKey, want opt.Option[Config]) ([]diff.Change, error) {
	c, ok := want.Get()
	if !ok {
		have, err := d.observeHost()
		return d.removal(have), err
	}
	have, err := d.observe(ctx)
	if err != nil {
		return nil, err
	}
	if err := d.possible(have); err != nil {
		return nil, err
	}
	if err := d.portFree(ctx, have, c.Port); err != nil {
		return nil, err
	}
	changes, have := d.creation(have)
	link, _ := have.link.Get() // the zero link is a link that the steps so far have just made
	wg, _ := have.wg.Get()
	d.sessions.see(wg.peers)
	problems := append(narrow(d.name, c), loops(c.Peers, func(to netip.Addr) bool { return d.host.links.leads(d.name, to) })...)
	d.problems.Store(&problems)
	for _, e := range linkEdits(link, c) {
		changes = append(changes, d.linkChange(e, c))
	}
	tunnel, lost, err := d.wgChanges(wg, key, c)
	if err != nil {
		return nil, err
	}
	changes = append(changes, tunnel...)
	if !link.up { // after all that, so that the interface appears whole
		changes = append(changes, d.linkChange(linkEdit{verb: setUp}, c))
	}
	if len(lost) > 0 {
		object := fmt.Sprintf("handshakes with %d peers of the device before this", len(lost))
		changes = append(changes, d.change("begin", object, func(ctx context.Context) error { return d.revive(ctx, lost) }))
	}
	return changes, nil
}

// Check returns the reason for which the host cannot hold the interface, in a line with the
// remedy, or nil. Changes makes the same check first.
func (d *Device) Check(context.Context) error {
	have, err := d.observeHost()
	if err != nil {
		return err
	}
	return d.possible(have)
}

// possible returns the obstacle to the interface.
func (d *Device) possible(have state) error {
	if l, ok := have.link.Get(); ok && !l.ours() {
		return fmt.Errorf("interface %s exists and is of kind %s, not WireGuard: "+
			"remove it with `ip link delete %s`, or choose another name with --interface", d.name, l.kind, d.name)
	}
	if d.choice.kind == Kernel || have.engine.Present() { // a running engine has a TUN driver
		return d.choice.missing
	}
	return errors.Join(d.choice.missing, d.host.engines.possible())
}

// portFree checks, before any change, that the device can have the UDP port. There is no
// check for a device that has the port already, and none while an engine runs without an
// answer, because that engine may have it.
func (d *Device) portFree(ctx context.Context, have state, port uint16) error {
	wg, answers := have.wg.Get()
	if answers && wg.port == port || !answers && have.engine.Present() {
		return nil
	}
	return d.host.portFree(ctx, port)
}

// creation returns the changes after which the interface exists and answers, and the state
// that is known for that moment: the zero link is a new link.
func (d *Device) creation(have state) ([]diff.Change, state) {
	var changes []diff.Change
	if l, ok := have.link.Get(); ok && d.wrongKind(l) {
		changes = append(changes, d.deletion("another kind of WireGuard is wanted"))
		have = state{}
	}
	if d.choice.kind == Kernel {
		if !have.link.Present() {
			add := func(context.Context) error { return d.host.links.add(d.name) }
			changes = append(changes, d.change("add", d.name+" (kernel WireGuard)", add))
		}
		return changes, have
	}
	owner, running := have.engine.Get()
	if have.hung {
		object := fmt.Sprintf("hung engine %s of %s: it gave no answer", owner.Kind, d.name)
		changes = append(changes, d.change("end", object, d.endHung))
	}
	if have.wg.Present() && have.link.Present() && (!running || Kind(owner.Kind) == d.choice.kind) {
		return changes, have
	}
	kind := engine.Kind(d.choice.kind)
	start := func(ctx context.Context) error { return d.host.engines.start(ctx, kind) }
	have.wg = opt.None[live]()
	return append(changes, d.change("start", fmt.Sprintf("engine %s of %s", kind, d.name), start)), have
}

// endHung ends an engine that hangs, and counts it.
func (d *Device) endHung(ctx context.Context) error {
	if err := d.host.engines.kill(ctx); err != nil {
		return err
	}
	d.replaced.Add(1)
	d.log.Warn().Str("interface", d.name).Uint64("replaced", d.replaced.Load()).Msg("engine gave no answer and made no progress: it was ended")
	return nil
}

// wrongKind reports whether the link has the kind of another data path than the chosen.
func (d *Device) wrongKind(l link) bool { return (l.kind == kernelLink) != (d.choice.kind == Kernel) }

// removal returns the changes after which no link, process or file of Loden is left.
func (d *Device) removal(have state) []diff.Change {
	if l, ok := have.link.Get(); ok && l.ours() {
		return []diff.Change{d.deletion("")}
	}
	if have.engine.Present() || have.files {
		return []diff.Change{d.change("delete", "engine of "+d.name, d.host.engines.clear)}
	}
	return nil
}

// deletion returns the change that deletes the interface and waits for its engine's end.
func (d *Device) deletion(reason string) diff.Change {
	object := d.name
	if reason != "" {
		object += ": " + reason
	}
	return d.change("delete", object, func(ctx context.Context) error {
		return errors.Join(d.host.links.remove(d.name), d.host.engines.clear(ctx))
	})
}

// change names a step of the device.
func (d *Device) change(verb, object string, run func(context.Context) error) diff.Change {
	return diff.Change{Part: "device", Verb: verb, Object: object, Run: run}
}

// linkChange returns the change that makes an edit of the link.
func (d *Device) linkChange(e linkEdit, want Config) diff.Change {
	verb, object := e.describe(d.name)
	return d.change(verb, object, func(context.Context) error {
		if err := portTaken(d.host.links.edit(d.name, e), want.Port); err != nil {
			return fmt.Errorf("%s %s: %w", verb, object, err)
		}
		return nil
	})
}

// wgChanges compares key, port and peers. lost are the peers whose sessions are to be revived.
func (d *Device) wgChanges(have live, key PrivateKey, want Config) (changes []diff.Change, lost []Peer, err error) {
	if want.Removals == RemoveNone && have.port != 0 {
		want.Port = have.port
	}
	if !have.key.Equal(key) || have.port != want.Port {
		changes = append(changes, d.change("set", "key and port "+strconv.Itoa(int(want.Port))+" of "+d.name,
			func(ctx context.Context) error { return d.setIdentity(ctx, have, key, want.Port) }))
	}
	published, err := d.host.record.load()
	if err != nil {
		return nil, nil, err
	}
	spare, err := NewKey()
	if err != nil {
		return nil, nil, err
	}
	c := comparison{live: have.peers, want: want, published: published, now: time.Now(), spare: spare.Public()}
	edits, publications := c.edits(), c.publications()
	// A new peer may mean that an earlier step deletes the interface, and its record with it.
	remember := !maps.Equal(published, publications) || slices.ContainsFunc(edits, func(e edit) bool { return e.verb == add })
	switch {
	case len(edits) > 0:
		verb, object := describe(edits)
		changes = append(changes, d.change(verb, object, func(ctx context.Context) error {
			err := d.host.tunnels.configure(ctx, d.name, configOf(edits))
			if err == nil && remember {
				err = d.host.record.save(publications)
			}
			return err
		}))
	case remember:
		changes = append(changes, d.change("record", "published endpoints of "+d.name,
			func(context.Context) error { return d.host.record.save(publications) }))
	}
	return changes, c.lost(edits, &d.sessions), nil
}

// setIdentity sets key and port, each only when it differs: wireguard-go opens its sockets
// anew for every port that it is given, also for the port that it has.
func (d *Device) setIdentity(ctx context.Context, have live, key PrivateKey, port uint16) error {
	var c wgtypes.Config
	if !have.key.Equal(key) {
		c.PrivateKey = new(key.bytes())
	}
	if have.port != port {
		c.ListenPort = new(int(port))
	}
	return portTaken(d.host.tunnels.configure(ctx, d.name, c), port)
}

// statusWithin is how long a status waits for the answer of an engine: less than the 5 s for
// which `loden status` waits for the daemon.
const statusWithin = 2 * time.Second

// Status lists the interface. A missing interface is no error, and an engine without an answer
// within two seconds is none either: the status then is Silent and names no peers.
func (d *Device) Status(ctx context.Context) (Status, error) {
	have, err := d.observeHost()
	silent := false
	if err == nil {
		asking, cancel := context.WithTimeout(ctx, statusWithin)
		have.wg, err = d.host.tunnels.device(asking, d.name)
		if err != nil && asking.Err() != nil && ctx.Err() == nil {
			silent, err = true, nil
		}
		cancel()
	}
	wg, _ := have.wg.Get()
	d.sessions.see(wg.peers)
	s := statusOf(have)
	s.Name, s.Kind, s.Reason, s.Silent, s.Replaced = d.name, d.choice.kind, d.choice.reason, silent, d.replaced.Load()
	if problems := d.problems.Load(); problems != nil {
		s.Problems = *problems
	}
	if have.engine.Present() && !silent {
		account := d.host.engines.status(ctx)
		s.Drops, s.Offloads = account.Drops, account.Offloads
	}
	return s, err
}

// Watch calls notify when the interface or an address on it changed, or when the userspace
// engine ended: when it is time to ask for Changes. A burst of events makes a single call.
// Watch blocks until ctx ends and returns nil then; notify must be quick.
func (d *Device) Watch(ctx context.Context, notify func()) error {
	return watch(ctx, d.name, notify)
}
