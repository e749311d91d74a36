package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// deviceStatus is the WireGuard interface as far as a report needs it.
type deviceStatus interface {
	Kind() backend.Kind
	Reason() string
	Status(ctx context.Context) (backend.Status, error)
}

// firewallStatus is the firewall as far as a report needs it.
type firewallStatus interface {
	Name() string
	Reason() string
	Counters(ctx context.Context, c firewall.Config) (opt.Dual[firewall.Refused], error)
}

// storeStatus is the registry as far as a report needs it. etcd itself is not asked.
type storeStatus interface{ Status() etcd.Status }

// reporter makes reports of a running node.
type reporter struct {
	settings   Settings
	key        wgtypes.Key // public
	reconciler *network.Reconciler
	device     deviceStatus
	firewall   firewallStatus
	store      storeStatus
	keeper     *leaseKeeper
	feed       *leaseFeed
	documents  *documents
	sampler    *sampler
	prober     *prober
	made       func(Report) // called with each report, in the order in which they are made

	rates                  rateKeeper
	flight                 singleflight.Group // of reports
	askDevice, askFirewall slot
}

// report returns a report of this moment. Requests at the same time share a report, so many
// monitors cost no more than a single monitor.
func (r *reporter) report(ctx context.Context) Report {
	shared, _, _ := r.flight.Do("report", func() (any, error) {
		rep := r.compose(context.WithoutCancel(ctx))
		r.made(rep)
		return rep, nil
	})
	rep, _ := shared.(Report)
	return rep
}

// compose makes a report. A part of the host that does not answer in time is named
// in the reason, and its part of the report stays empty.
func (r *reporter) compose(ctx context.Context) Report {
	s, passed := r.reconciler.Status()
	in := r.reconciler.Inputs()
	rep := Report{
		APIVersion: apiVersion, Version: r.settings.Version, Node: r.settings.Name, Interface: r.settings.Interface, PublicKey: r.key.String(),
		Engine:    EngineReport{Kind: string(r.device.Kind()), Reason: r.device.Reason()},
		Firewall:  FirewallReport{Kind: r.firewall.Name(), Reason: r.firewall.Reason(), Guard: r.settings.Rules.Guard, Clear: []GuardCounter{}},
		Store:     r.storeReport(),
		Wire:      r.sampler.report(),
		Probes:    r.prober.counted(),
		Peers:     []PeerReport{},
		Endpoints: in.Lease.Or(subnet.Lease{}).Endpoints,
		Uplinks:   opt.Map(in.Uplinks, func(_ opt.Family, u network.Uplink) string { return u.Name }),
		Problems:  append([]subnet.Problem{}, s.Problems...),
	}
	if passed {
		rep.Passes = PassReport{Total: s.Passes, Failed: s.Failures, Last: s.At, Took: s.Took.Seconds(), Changes: s.Changes}
	}
	if env, ok := s.State.Env.Get(); ok {
		rep.Networks, rep.Subnets = env.Networks, env.Subnets
	}
	if device, ok := s.State.Device.Get(); ok {
		rep.Port, rep.MTU = device.Port, device.MTU
	}
	_, entries, _ := r.feed.age()
	rep.Problems = append(rep.Problems, entries...)

	unready := r.unready(s, passed, in)
	rep.Ready = unready == ""
	reasons := []string{unready, r.keeper.refusal(), r.documents.refusal(), announced(in)}
	reasons = append(reasons, r.fillPeers(ctx, &rep, s, in), r.fillGuard(ctx, &rep, s))
	if s.Err != nil {
		rep.Passes.Error = oneLine(s.Err.Error())
		reasons = append(reasons, "the last pass was incomplete: "+rep.Passes.Error)
	}
	if !rep.Store.Up && rep.Ready {
		reasons = append(reasons, "etcd is away; the last known peers stand")
	}
	reasons = slices.DeleteFunc(reasons, func(s string) bool { return s == "" })
	rep.Reason = strings.Join(slices.Compact(reasons), "; ")
	return rep
}

// unready returns why pods cannot be attached yet, or "". An etcd that is away is no
// reason: the data path stands.
func (r *reporter) unready(s network.Status, passed bool, in network.Inputs) string {
	switch {
	case in.Lease.Present() && passed && s.Complete:
		return ""
	case in.Lease.Present() && s.Err != nil:
		return "the data path is not in place"
	case in.Lease.Present():
		return "the data path is being set up"
	case !r.store.Status().Connected:
		return "waiting for etcd"
	case in.Network.Ranges.IsZero():
		return "waiting for a network document and a lease"
	}
	return "waiting for a lease"
}

// announced returns how the lease in the store differs from the endpoints of this node, or
// "". Peers use the endpoints in the store.
func announced(in network.Inputs) string {
	own, held := in.Lease.Get()
	want := network.Endpoints(in)
	if !held || in.Uplinks.IsZero() || own.Endpoints == want {
		return ""
	}
	return fmt.Sprintf("the lease in the store announces %s, and this node is reached at %s", endpointText(own.Endpoints), endpointText(want))
}

// endpointText prints the endpoints of both families.
func endpointText(d opt.Dual[netip.AddrPort]) string {
	var parts []string
	for _, e := range d.All() {
		parts = append(parts, e.String())
	}
	if len(parts) == 0 {
		return "no endpoint"
	}
	return strings.Join(parts, " and ")
}

func (r *reporter) storeReport() StoreReport {
	s := r.store.Status()
	at, entries, fromDisk := r.feed.age()
	return StoreReport{
		Up: s.Connected, Since: s.Since, Error: s.LastError, Revision: s.Revision,
		Snapshot: at, FromDisk: fromDisk, Held: r.feed.held(), Skipped: len(entries),
		Expires: int64(r.settings.LeaseTTL.Seconds()),
	}
}

// fillPeers lists the interface, and names each peer after the lease that Plan accepted for
// its key. It returns the problem of the interface, or "".
func (r *reporter) fillPeers(ctx context.Context, rep *Report, s network.Status, in network.Inputs) string {
	status, err := ask(ctx, r.askDevice, "the interface", r.device.Status)
	if err != nil {
		rep.deviceUnknown = true
		if errors.Is(err, errLate) && r.device.Kind() != backend.Kernel {
			rep.Engine.Silent = true
			return fmt.Sprintf("the userspace engine does not answer within %v; it is replaced when it stays silent", answerLimit)
		}
		return oneLine(err.Error())
	}
	rep.Engine.Silent, rep.Engine.Replaced, rep.Engine.Drops = status.Silent, status.Replaced, status.Drops
	rep.Engine.Offloads = status.Offloads
	for _, p := range status.Problems {
		rep.Problems = append(rep.Problems, subnet.Problem{Object: p.Object, Reason: p.Reason})
	}
	names := acceptedLeases(s.State, in.Leases)
	for _, p := range status.Peers {
		l := names[p.PublicKey]
		paths, worst := r.prober.pathsOf(l.Key, l.Subnets)
		rep.Peers = append(rep.Peers, PeerReport{
			Node: l.Node, PublicKey: p.PublicKey, Endpoint: p.Endpoint.String(), Announced: l.Endpoints, Subnets: l.Subnets,
			Handshake: p.Handshake, Received: p.Received, Sent: p.Sent,
			State: worst, Paths: paths,
		})
	}
	slices.SortFunc(rep.Peers, func(a, b PeerReport) int { return strings.Compare(a.Node+a.PublicKey, b.Node+b.PublicKey) })
	r.rates.fill(rep.Peers, time.Now())
	if status.Silent {
		return "the userspace engine does not answer; it is replaced when it stays silent"
	}
	if rep.Ready && !status.Up {
		return "the interface is down"
	}
	return ""
}

// acceptedLeases returns, by public key, the lease from which Plan made the peer with that
// key. Several leases may name a key; the peer's subnets say which lease Plan accepted.
func acceptedLeases(want network.State, leases subnet.Leases) map[string]subnet.Lease {
	device, _ := want.Device.Get()
	planned := make(map[wgtypes.Key]opt.Dual[netip.Prefix], device.Peers.Len())
	for p := range device.Peers.All() {
		planned[p.Key] = p.Subnets
	}
	out := make(map[string]subnet.Lease, len(planned))
	for l := range leases.All() {
		if subnets, ok := planned[l.Key]; ok && subnets == l.Subnets {
			out[l.Key.String()] = l
		}
	}
	return out
}

// fillGuard reads the counters of the packet guard. It returns why they cannot be read, or "".
func (r *reporter) fillGuard(ctx context.Context, rep *Report, s network.Status) string {
	counters, err := ask(ctx, r.askFirewall, "the firewall", func(ctx context.Context) (opt.Dual[firewall.Refused], error) {
		return r.firewall.Counters(ctx, s.State.Firewall)
	})
	if err != nil {
		return "the guard's counters cannot be read: " + oneLine(err.Error())
	}
	for f, c := range counters.All() {
		family := strings.ToLower(f.String())
		rep.Firewall.Clear = append(rep.Firewall.Clear,
			GuardCounter{family, "in", c.In}, GuardCounter{family, "out", c.Out})
	}
	return ""
}

// answerLimit bounds a question to the interface or to the firewall, so that a report is
// there within a second even when a userspace engine hangs.
const answerLimit = 400 * time.Millisecond

// errLate says that a part of the host gave no answer in time.
var errLate = errors.New("does not answer")

// slot lets at most one question to a part of the host be under way, however often a report
// is asked for. Make it with newSlot.
type slot chan struct{}

func newSlot() slot { return make(slot, 1) }

// ask calls fn and waits for its answer for at most answerLimit. While an earlier question
// is under way it waits for the slot instead.
func ask[T any](ctx context.Context, s slot, object string, fn func(context.Context) (T, error)) (T, error) {
	var none T
	late := fmt.Errorf("%s %w within %v", object, errLate, answerLimit)
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	select {
	case s <- struct{}{}:
	case <-ctx.Done():
		return none, late
	}
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1) // so that the sender never waits for a reader that is gone
	go func() {
		value, err := fn(ctx)
		<-s
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		if a.err != nil && ctx.Err() != nil {
			return none, late
		}
		return a.value, a.err
	case <-ctx.Done():
		return none, late
	}
}
