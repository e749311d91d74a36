package node

import (
	"context"
	"slices"
	"strings"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
)

// api returns what answers questions about this daemon.
func (d *daemon) api() api {
	return api{report: d.report, metrics: metricsHandler(d.report), confirm: d.cache.confirm}
}

// report looks at everything once. It lists the interface and the guard's counters, and
// asks nothing of etcd.
func (d *daemon) report(ctx context.Context) Report {
	s, passed := d.reconciler.Status()
	in := d.reconciler.Inputs()
	rep := Report{
		Version: d.version, Node: d.node.Name, Interface: d.node.Interface, PublicKey: d.host.key.Public().String(),
		Engine:    EngineReport{Kind: string(d.host.device.Kind()), Reason: d.host.device.Reason()},
		Firewall:  FirewallReport{Kind: d.host.firewall.Name(), Reason: d.host.firewall.Reason(), Guard: d.node.Guard},
		Store:     d.storeReport(),
		Wire:      d.wire.report(),
		Peers:     []PeerReport{},
		Endpoints: network.Endpoints(in),
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
	_, entries, _ := d.cache.age()
	rep.Problems = append(rep.Problems, entries...)
	reasons := slices.DeleteFunc([]string{d.unready(s, passed, in)}, func(s string) bool { return s == "" })
	rep.Ready = len(reasons) == 0
	reasons = append(reasons, d.fillPeers(ctx, &rep, in)...)
	reasons = append(reasons, d.fillGuard(ctx, &rep)...)
	if s.Err != nil {
		rep.Passes.Error = oneLine(s.Err.Error())
		reasons = append(reasons, "the last pass was incomplete: "+rep.Passes.Error)
	}
	if !rep.Store.Up && rep.Ready {
		reasons = append(reasons, "etcd is away; the last known peers stand")
	}
	rep.Reason = strings.Join(slices.Compact(reasons), "; ")
	return rep
}

// unready says why pods cannot be attached yet, or "". An etcd that is away is no reason:
// what was set up stands.
func (d *daemon) unready(s network.Status, passed bool, in network.Inputs) string {
	switch {
	case in.Lease.Present() && passed && s.Complete:
		return ""
	case in.Lease.Present() && s.Err != nil:
		return "the data path is not in place"
	case in.Lease.Present():
		return "the data path is being set up"
	case !d.registry.Status().Connected:
		return "waiting for etcd"
	case in.Network.Ranges.IsZero():
		return "waiting for a network document and a lease"
	}
	return "waiting for a lease"
}

func (d *daemon) storeReport() StoreReport {
	s := d.registry.Status()
	at, entries, fromDisk := d.cache.age()
	return StoreReport{
		Up: s.Connected, Since: s.Since, Error: s.LastError, Revision: s.Revision,
		Snapshot: at, FromDisk: fromDisk, Held: d.cache.held(), Skipped: len(entries),
		Expires: int64(d.node.LeaseTTL.Seconds()),
	}
}

// fillPeers lists the interface and names each peer by its lease.
func (d *daemon) fillPeers(ctx context.Context, rep *Report, in network.Inputs) []string {
	status, err := d.host.device.Status(ctx)
	if err != nil {
		return []string{"the interface cannot be listed: " + oneLine(err.Error())}
	}
	leases := map[string]subnet.Lease{}
	for _, l := range in.Leases {
		leases[l.Key.String()] = l
	}
	for _, p := range status.Peers {
		l := leases[p.PublicKey]
		rep.Peers = append(rep.Peers, PeerReport{
			Node: l.Node, PublicKey: p.PublicKey, Endpoint: p.Endpoint.String(), Subnets: l.Subnets,
			Handshake: p.Handshake, Received: p.Received, Sent: p.Sent,
		})
	}
	slices.SortFunc(rep.Peers, func(a, b PeerReport) int { return strings.Compare(a.Node+a.PublicKey, b.Node+b.PublicKey) })
	if rep.Ready && !status.Up {
		return []string{"the interface is down"}
	}
	return nil
}

// fillGuard reads what the guard has caught.
func (d *daemon) fillGuard(ctx context.Context, rep *Report) []string {
	s, _ := d.reconciler.Status()
	counters, err := d.host.firewall.Counters(ctx, s.State.Firewall)
	if err != nil {
		return []string{"the guard's counters cannot be read: " + oneLine(err.Error())}
	}
	rep.Firewall.Clear = []GuardCounter{}
	for f, c := range counters.All() {
		family := strings.ToLower(f.String())
		rep.Firewall.Clear = append(rep.Firewall.Clear,
			GuardCounter{family, "in", c.In}, GuardCounter{family, "out", c.Out})
	}
	return nil
}
