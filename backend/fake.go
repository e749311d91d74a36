package backend

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/prefix"
)

// Fake is a host in memory for tests: an interface, a WireGuard device and an engine process
// that follow the rules of the real ones as far as a Device can see. It needs no privilege, and
// its time is time.Now, so it works under testing/synctest. Its methods may be called from
// several goroutines. Make it with NewFake.
type Fake struct {
	mu     sync.Mutex // guards the fields below
	kernel bool       // the kernel has WireGuard
	link   opt.Option[link]
	owner  opt.Option[engine.Owner]
	pid    int // of the last engine
	files  bool
	hung   chan struct{} // closed when the engine that hangs is ended; nil while none hangs
	busy   bool          // the engine uses CPU time although it gives no answer
	used   time.Duration // CPU time of the engine
	wg     *fakeTunnel   // nil while neither kernel nor engine has a WireGuard device
	record endpoints
	status engine.Status
	calls  []string
}

// NewFake returns a host without interface, engine and WireGuard in the kernel.
func NewFake() *Fake { return &Fake{} }

// Kernel gives the kernel of the host its WireGuard.
func (f *Fake) Kernel() *Fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kernel = true
	return f
}

// Device opens the interface of the host, as Open does on a real host. o.RunDir is not used.
func (f *Fake) Device(o Options) (*Device, error) {
	f.mu.Lock()
	kernel := f.kernel
	f.mu.Unlock()
	free := func(context.Context, uint16) error { return nil }
	return newDevice(o, host{links: fakeLinks{f}, tunnels: fakeTunnels{f}, engines: fakeEngines{f}, portFree: free, record: fakeRecord{f}}, kernel)
}

// Crash ends the engine as SIGKILL does: its TUN device stays, its sessions are lost.
func (f *Fake) Crash() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.end()
}

// Hang makes the engine give no answer any more. A busy engine goes on using CPU time.
func (f *Fake) Hang(busy bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hung, f.busy = make(chan struct{}), busy
}

// Answer ends a hang without the end of the engine.
func (f *Fake) Answer() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.release()
}

// Hear records a handshake with a peer, now, from the address at: the peer roams to it.
func (f *Fake) Hear(key wgtypes.Key, at netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wg == nil {
		return
	}
	if p, ok := f.wg.peers[key]; ok {
		p.endpoint, p.handshake = at, time.Now()
	}
}

// Drop makes the engine count dropped packets for a reason.
func (f *Fake) Drop(reason string, packets uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Drops = map[string]uint64{reason: packets}
}

// Offload gives the engine an offload in a state: see engine.Status.
func (f *Fake) Offload(name, state string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Offloads = map[string]string{name: state}
}

// Calls returns every effect on the host in order, a line for each: "start engine loden",
// "kill engine", "set mtu 1420", "configure 2 peers".
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

// did records an effect. The caller holds mu.
func (f *Fake) did(format string, args ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

// end ends the engine. The caller holds mu.
func (f *Fake) end() {
	f.owner, f.wg = opt.None[engine.Owner](), nil
	f.release()
}

// release lets the callers of a hung engine go on. The caller holds mu.
func (f *Fake) release() {
	if f.hung != nil {
		close(f.hung)
	}
	f.hung, f.busy = nil, false
}

var errNoLink = errors.New("no such interface")

// fakeLinks is the rtnetlink of a Fake.
type fakeLinks struct{ *Fake }

func (f fakeLinks) close() {}

func (f fakeLinks) observe(string) (opt.Option[link], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.link, nil
}

func (f fakeLinks) edit(_ string, e linkEdit) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l, ok := f.link.Get()
	if !ok {
		return errNoLink
	}
	verb, object := e.describe("it")
	f.did("%s %s", verb, object)
	switch e.verb {
	case setUp:
		l.up = true
	case setMTU:
		l.mtu = e.mtu
	case addAddress:
		l.addresses = append(slices.Clone(l.addresses), e.address)
	case deleteAddress:
		l.addresses = slices.DeleteFunc(slices.Clone(l.addresses), func(a netip.Prefix) bool { return a == e.address })
	}
	f.link = opt.Some(l)
	return nil
}

func (f fakeLinks) add(string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did("add kernel interface")
	f.link, f.wg = opt.Some(link{kind: kernelLink, mtu: 1420}), newFakeTunnel()
	return nil
}

func (f fakeLinks) leads(string, netip.Addr) bool { return false }

func (f fakeLinks) remove(string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did("remove interface")
	f.link = opt.None[link]()
	f.end() // a real engine notices that its interface is gone
	return nil
}

// fakeEngines is the engine process of a Fake.
type fakeEngines struct{ *Fake }

func (f fakeEngines) observe() (opt.Option[engine.Owner], bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.owner, f.files, nil
}

func (f fakeEngines) possible() error { return nil }

func (f fakeEngines) start(_ context.Context, kind engine.Kind) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if running, ok := f.owner.Get(); ok {
		if running.Kind == kind { // accepts connections, although it may hang
			return nil
		}
		f.end()
	}
	f.did("start engine %s", kind)
	f.pid++
	f.owner, f.files, f.wg = opt.Some(engine.Owner{PID: f.pid, Kind: kind}), true, newFakeTunnel()
	if !f.link.Present() {
		f.link = opt.Some(link{kind: tunLink, mtu: 1420})
	}
	return nil
}

func (f fakeEngines) kill(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did("kill engine")
	f.end()
	return nil
}

func (f fakeEngines) progress(context.Context) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy {
		f.used += time.Second
	}
	return f.used
}

func (f fakeEngines) status(context.Context) engine.Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.Fake.status
}

func (f fakeEngines) clear(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did("clear engine")
	f.end()
	f.files, f.record = false, nil
	return nil
}

// fakeTunnels is the wgctrl of a Fake.
type fakeTunnels struct{ *Fake }

func (f fakeTunnels) close() error { return nil }

// answered waits while the engine hangs.
func (f fakeTunnels) answered(ctx context.Context) error {
	f.mu.Lock()
	hung := f.hung
	f.mu.Unlock()
	if hung == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerWithin, errNoAnswer)
	defer cancel()
	select {
	case <-hung:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (f fakeTunnels) device(ctx context.Context, _ string) (opt.Option[live], error) {
	if err := f.answered(ctx); err != nil {
		return opt.None[live](), err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wg == nil {
		return opt.None[live](), nil
	}
	return opt.Some(f.wg.list()), nil
}

func (f fakeTunnels) configure(ctx context.Context, _ string, c wgtypes.Config) error {
	if err := f.answered(ctx); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.wg == nil {
		return errNoLink
	}
	if c.ListenPort != nil {
		f.did("listen on %d", *c.ListenPort)
		f.wg.port = uint16(*c.ListenPort)
	}
	if c.PrivateKey != nil {
		f.wg.key = privateKey(*c.PrivateKey)
	}
	if len(c.Peers) > 0 {
		f.did("configure %d peers", len(c.Peers))
	}
	started := 0
	for _, p := range c.Peers {
		if old, ok := f.wg.peers[p.PublicKey]; ok && old.keepalive == 0 && p.PersistentKeepaliveInterval != nil && *p.PersistentKeepaliveInterval != 0 {
			started++
		}
		f.wg.configure(p)
	}
	if started > 0 {
		f.did("keepalive of %d peers on", started)
	}
	return nil
}

// fakeTunnel is a WireGuard device reduced to its rules: a peer is made when it is named
// unless the edit is an update only, and a prefix belongs to the peer that got it last.
type fakeTunnel struct {
	key    PrivateKey
	port   uint16
	peers  map[wgtypes.Key]*livePeer
	holder map[netip.Prefix]wgtypes.Key
}

func newFakeTunnel() *fakeTunnel {
	return &fakeTunnel{peers: map[wgtypes.Key]*livePeer{}, holder: map[netip.Prefix]wgtypes.Key{}}
}

// configure makes a single edit of a peer.
func (t *fakeTunnel) configure(c wgtypes.PeerConfig) {
	if c.Remove {
		delete(t.peers, c.PublicKey)
		maps.DeleteFunc(t.holder, func(_ netip.Prefix, k wgtypes.Key) bool { return k == c.PublicKey })
		return
	}
	p, ok := t.peers[c.PublicKey]
	if !ok {
		if c.UpdateOnly {
			return
		}
		p = &livePeer{key: c.PublicKey}
		t.peers[c.PublicKey] = p
	}
	if c.Endpoint != nil {
		p.endpoint = addrPortOf(c.Endpoint)
	}
	if c.PresharedKey != nil {
		p.psk = config.PresharedKey(*c.PresharedKey)
	}
	if c.PersistentKeepaliveInterval != nil {
		p.keepalive = *c.PersistentKeepaliveInterval
	}
	for _, n := range c.AllowedIPs {
		if allowed, ok := prefix.FromIPNet(n); ok {
			t.holder[allowed] = c.PublicKey
		}
	}
}

// list returns the device as wgctrl lists it.
func (t *fakeTunnel) list() live {
	out := live{key: t.key, port: t.port}
	for _, p := range t.peers {
		q := *p
		q.prefixes = nil
		for prefix, k := range t.holder {
			if k == q.key {
				q.prefixes = append(q.prefixes, prefix)
			}
		}
		slices.SortFunc(q.prefixes, netip.Prefix.Compare)
		out.peers = append(out.peers, q)
	}
	sortPeers(out.peers)
	return out
}
