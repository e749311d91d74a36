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
	"github.com/loden-net/loden/subnet/etcd"
)

// documentOf returns the network document with a text.
func documentOf(t testing.TB, text string) etcd.Document {
	t.Helper()
	n, err := config.ParseNetwork([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return etcd.Document{Data: []byte(text), Network: n, Revision: 1}
}

// fakeStore is the registry in memory as a node needs it.
type fakeStore struct{ *etcd.Fake }

func (s fakeStore) acquire(ctx context.Context, w etcd.Want) (claim, error) {
	c, err := s.Acquire(ctx, w)
	if err != nil {
		return nil, err // not c: a nil *FakeClaim in an interface is not nil
	}
	return c, nil
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
		network.DevicePart(h.device, h.key),
		memory("routes", func(a, b network.State) bool { return slices.Equal(a.Routes, b.Routes) }, func(to *network.State, from network.State) { to.Routes = from.Routes }),
		memory("env", func(a, b network.State) bool { return a.Env == b.Env }, func(to *network.State, from network.State) { to.Env = from.Env }),
	}
}

// bed is a host in memory with a store, on which a node can run.
type bed struct {
	t        testing.TB
	settings Settings
	store    fakeStore
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
	b.store = fakeStore{etcd.NewFake(savedSnapshot(1, nodes...).Leases.Slice()...)}
	if document != "" {
		b.store.Document, b.store.Wrong = documentOf(t, document), nil
	}
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
