package node

import (
	"context"

	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// fakeStore is a registry in memory. Its fields may be changed through set while a node runs.
type fakeStore struct {
	mu       sync.Mutex // guards the fields below
	away     error      // of every request, as while etcd is away or refuses everything
	readOnly error      // of every write, as with NOSPACE
	document etcd.Document
	wrong    error // of the document
	leases   []subnet.Lease
	revision int64
	lost     chan struct{} // closed to end every claim
	changed  chan struct{} // closed and replaced at every change
	updates  []subnet.Lease
}

func newFakeStore(t testing.TB, document string, leases ...subnet.Lease) *fakeStore {
	t.Helper()
	s := &fakeStore{lost: make(chan struct{}), changed: make(chan struct{}), leases: leases, revision: 1}
	if document == "" {
		s.wrong = etcd.ErrNoNetwork
		return s
	}
	s.document = documentOf(t, document)
	return s
}

func documentOf(t testing.TB, text string) etcd.Document {
	t.Helper()
	n, err := config.ParseNetwork([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return etcd.Document{Data: []byte(text), Network: n, Revision: 1}
}

// set changes the store, and tells the watchers.
func (s *fakeStore) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	s.revision++
	s.document.Revision = s.revision
	close(s.changed)
	s.changed = make(chan struct{})
}

// lose ends the claims of the moment.
func (s *fakeStore) lose() {
	s.set(func() {
		close(s.lost)
		s.lost = make(chan struct{})
	})
}

func (s *fakeStore) Network(context.Context) (config.Network, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil {
		return config.Network{}, s.away
	}
	return s.document.Network, s.wrong
}

func (s *fakeStore) Snapshot(context.Context) (subnet.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return subnet.Snapshot{Revision: s.revision, Leases: slices.Clone(s.leases)}, s.away
}

func (s *fakeStore) Watch(ctx context.Context, emit func(subnet.Snapshot)) error {
	return s.follow(ctx, func() {
		if snapshot, err := s.Snapshot(ctx); err == nil {
			emit(snapshot)
		}
	})
}

func (s *fakeStore) WatchNetwork(ctx context.Context, emit func(etcd.Document, error)) error {
	return s.follow(ctx, func() {
		s.mu.Lock()
		d, err := s.document, s.wrong
		if s.away != nil {
			d, err = etcd.Document{}, s.away
		}
		s.mu.Unlock()
		emit(d, err)
	})
}

// follow calls look at once and after every change, until ctx ends.
func (s *fakeStore) follow(ctx context.Context, look func()) error {
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		look()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (s *fakeStore) Status() etcd.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return etcd.Status{Connected: s.away == nil, Revision: s.revision}
}

func (s *fakeStore) Close() error { return nil }

// Choice returns the lease with the node's name, or a new lease.
func (s *fakeStore) Choice(_ context.Context, w etcd.Want) (etcd.Choice, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away != nil {
		return etcd.Choice{}, s.away
	}
	for _, l := range s.leases {
		if l.Node == w.Lease.Node {
			return etcd.Choice{Lease: l, Held: true}, nil
		}
	}
	lease := w.Lease
	var err error
	lease.Subnets, err = subnet.Allocate(w.Network, w.Lease.Node+"#0", w.Prefer, s.leases)
	return etcd.Choice{Lease: lease}, err
}

func (s *fakeStore) acquire(ctx context.Context, w etcd.Want) (claim, error) {
	choice, err := s.Choice(ctx, w)
	if err != nil {
		return nil, err
	}
	lease := choice.Lease
	lease.Key, lease.Endpoints = w.Lease.Key, w.Lease.Endpoints
	c := &fakeClaim{store: s, lease: lease}
	s.mu.Lock()
	c.lost = s.lost
	s.mu.Unlock()
	if err := c.Update(ctx, lease); err != nil {
		return nil, err
	}
	return c, nil
}

func (s *fakeStore) Release(_ context.Context, name string) error {
	if s.away != nil {
		return s.away
	}
	err := etcd.ErrNoLease
	s.set(func() {
		s.leases = slices.DeleteFunc(slices.Clone(s.leases), func(l subnet.Lease) bool {
			if l.Node == name {
				err = nil
			}
			return l.Node == name
		})
	})
	return err
}

// stored returns the lease of a node in the store.
func (s *fakeStore) stored(name string) opt.Option[subnet.Lease] {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.leases {
		if l.Node == name {
			return opt.Some(l)
		}
	}
	return opt.None[subnet.Lease]()
}

// fakeClaim is a lease in a fakeStore.
type fakeClaim struct {
	store *fakeStore
	lease subnet.Lease
	lost  chan struct{}
}

func (c *fakeClaim) Lease() subnet.Lease { return c.lease }

func (c *fakeClaim) Keep(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.lost:
		return etcd.ErrLeaseLost
	}
}

func (c *fakeClaim) Update(_ context.Context, want subnet.Lease) error {
	c.store.mu.Lock()
	refused := c.store.readOnly
	if c.store.away != nil {
		refused = c.store.away
	}
	same := slices.Contains(c.store.leases, want)
	c.store.mu.Unlock()
	if refused != nil {
		return refused
	}
	c.lease = want
	if same {
		return nil
	}
	c.store.set(func() {
		c.store.updates = append(c.store.updates, want)
		c.store.leases = append(slices.DeleteFunc(slices.Clone(c.store.leases), func(l subnet.Lease) bool { return l.Node == want.Node }), want)
	})
	return nil
}

// fakeKernel is the links, routes and settings of a host in memory.
type fakeKernel struct {
	mu    sync.Mutex // guards the fields below
	state network.HostState
	fault error // of every observation
	held  network.State
}

func (k *fakeKernel) Observe(network.Inputs) (network.HostState, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state, k.fault
}

func (k *fakeKernel) Expire() {}

func (k *fakeKernel) Watch(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

func (k *fakeKernel) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
}

// env returns the subnet.env of the host.
func (k *fakeKernel) env() opt.Option[config.Env] {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.held.Env
}

func (k *fakeKernel) parts(h *host) []network.Part {
	memory := func(name string, same func(a, b network.State) bool, take func(to *network.State, from network.State)) network.Part {
		return network.Part{Name: name, Readiness: name == "env", Changes: func(_ context.Context, want network.State) ([]diff.Change, error) {
			k.mu.Lock()
			defer k.mu.Unlock()
			if same(k.held, want) {
				return nil, nil
			}
			return []diff.Change{{Verb: "set", Object: name, Run: func(context.Context) error {
				k.set(func() { take(&k.held, want) })
				return nil
			}}}, nil
		}}
	}
	return []network.Part{
		{Name: "firewall", Changes: func(ctx context.Context, want network.State) ([]diff.Change, error) {
			return h.firewall.Changes(ctx, want.Firewall)
		}},
		{Name: "device", Changes: func(ctx context.Context, want network.State) ([]diff.Change, error) {
			return h.device.Changes(ctx, h.key, want.Device)
		}},
		memory("routes", func(a, b network.State) bool { return slices.Equal(a.Routes, b.Routes) }, func(to *network.State, from network.State) { to.Routes = from.Routes }),
		memory("env", func(a, b network.State) bool { return a.Env == b.Env }, func(to *network.State, from network.State) { to.Env = from.Env }),
	}
}

// bed is a host in memory with a store, on which a node can run.
type bed struct {
	t        testing.TB
	settings Settings
	store    *fakeStore
	kernel   *fakeKernel
	device   *backend.Fake
	firewall *firewall.Firewall
	packets  *firewall.Fake
	logged   *lines

	storeFault, deviceFault, firewallFault error // of opening the tool
}

// lines keeps the log.
type lines struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), part)
}

const bedDocument = `{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard"}}`

func uplink(address string) opt.Dual[network.Uplink] {
	a := netip.MustParseAddr(address)
	return opt.Dual[network.Uplink]{V4: opt.Some(network.Uplink{Name: "eth0", MTU: 1500, Address: a, Public: a})}
}

// newBed returns a bed of node n1 with an uplink, and other nodes' leases in the store.
func newBed(t testing.TB, document string, nodes ...int) *bed {
	t.Helper()
	b := &bed{t: t, kernel: &fakeKernel{}, device: backend.NewFake().Kernel(), logged: &lines{}}
	log := zerolog.New(zerolog.MultiLevelWriter(b.logged, zerolog.NewTestWriter(t)))
	b.store = newFakeStore(t, document, savedSnapshot(1, nodes...).Leases...)
	b.kernel.state.Uplinks = uplink("192.0.2.1")
	b.firewall, b.packets = firewall.NewFake(log)
	dir := t.TempDir()
	b.settings = Settings{Version: "v1", Log: log, Settings: config.Settings{
		Name: "n1", Interface: "loden0", StateDir: dir + "/state", RunDir: dir + "/run", SubnetFile: dir + "/run/subnet.env",
		Engine: "auto", Rules: config.Rules{Guard: "enforce", IPv6Masq: "auto"},
		LeaseTTL: time.Hour, RemovalHold: 5 * time.Minute, StoreWait: 5 * time.Minute, Resync: 30 * time.Second,
	}}
	return b
}

func (b *bed) environment() environment {
	return environment{
		store: func(context.Context, Settings) (store, error) { return b.store, b.storeFault },
		device: func(s Settings) (*backend.Device, error) {
			if b.deviceFault != nil {
				return nil, b.deviceFault
			}
			return b.device.Device(backend.Options{Name: s.Interface, Engine: s.Engine, Log: s.Log})
		},
		firewall: func(context.Context, Settings, bool) (*firewall.Firewall, error) { return b.firewall, b.firewallFault },
		kernel:   func(Settings) kernel { return b.kernel },
	}
}

// run starts a node without listeners, in the bubble of synctest, and returns it with the
// function that ends it.
func (b *bed) run() (*node, func() error) {
	b.t.Helper()
	p, err := b.environment().prepare(b.t.Context(), b.settings)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := p.host.openKey(); err != nil {
		b.t.Fatal(err)
	}
	n := newNode(p.host, p.store)
	n.feed.start(b.settings.Name, p.host.key.Public())
	ctx, stop := context.WithCancel(b.t.Context())
	g, ctx := errgroup.WithContext(ctx)
	n.start(ctx, g, b.firewall.Watch)
	synctest.Wait()
	return n, func() error {
		stop()
		err := g.Wait()
		p.close()
		return err
	}
}

// peers returns the nodes of the peers in the report, in order.
func peers(n *node) string {
	var names []string
	for _, p := range n.reporter.report(context.Background()).Peers {
		names = append(names, p.Node)
	}
	return strings.Join(names, " ")
}

// later lets the fake time pass.
func later(d time.Duration) {
	time.Sleep(d) // fake time of synctest
	synctest.Wait()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newUserspace returns a host whose kernel has no WireGuard.
func newUserspace() *backend.Fake { return backend.NewFake() }
