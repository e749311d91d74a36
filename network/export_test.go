package network

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// The parts that need the kernel alone, for tests of each part by itself.

func RouteChanges(ctx context.Context, tunnel string, want []Route) ([]diff.Change, error) {
	o := NewObserver(tunnel, config.UplinkChoice{})
	return routes{tunnel: tunnel, observe: o.inventory, bridge: &gatewayWatch{}}.changes(ctx, want, opt.Dual[netip.Prefix]{})
}

func SysctlChanges(ctx context.Context, before string, want []Sysctl) ([]diff.Change, error) {
	return sysctls{before: before}.changes(ctx, want)
}

func EnvChanges(ctx context.Context, path string, want opt.Option[config.Env]) ([]diff.Change, error) {
	return envFile{path: path}.changes(ctx, want)
}

// StateOf derives the state of the host from an inventory, as Observe does.
func StateOf(c config.UplinkChoice, v Inventory) (HostState, error) { return hostState(c, v, Inputs{}) }

// NetworkChanges is the routes and the forwarding of one network among several on a host.
func NetworkChanges(ctx context.Context, tunnel, before string, want []Route, up bool) ([]diff.Change, error) {
	r := routes{tunnel: tunnel, observe: NewObserver(tunnel, config.UplinkChoice{}).inventory, bridge: &gatewayWatch{}}
	s := sysctls{before: before, shared: r.shared}
	if !up {
		a, err1 := r.changes(ctx, nil, opt.Dual[netip.Prefix]{})
		b, err2 := s.changes(ctx, nil)
		return append(a, b...), errors.Join(err1, err2)
	}
	a, err1 := s.changes(ctx, []Sysctl{{"net/ipv4/ip_forward", "1"}})
	b, err2 := r.changes(ctx, want, opt.Dual[netip.Prefix]{})
	return append(a, b...), errors.Join(err1, err2)
}

// GatewayChanges is the bridge's side of the routes part.
func GatewayChanges(tunnel string, want opt.Dual[netip.Prefix]) ([]diff.Change, error) {
	v, err := readInventory(tunnel, opt.None[netip.Addr](), overlay{})
	return gatewayChanges(v, want), err
}

// StateFor is StateOf with the last inputs.
func StateFor(c config.UplinkChoice, v Inventory, in Inputs) (HostState, error) {
	return hostState(c, v, in)
}

// CountDumps returns how many lists an inventory asks the kernel for.
func CountDumps(tunnel string) (int, error) {
	c, err := dialKernel()
	if err != nil {
		return 0, err
	}
	defer c.close()
	_, err = c.inventory(tunnel, opt.None[netip.Addr](), overlay{})
	return c.dumps, err
}

// OwnRoutes returns how many routes with our mark the routes part compares with.
func OwnRoutes(o *Observer) (int, error) {
	v, err := o.inventory()
	return len(v.own), err
}

// ReadInventory is the kernel's side of Observe.
func ReadInventory(tunnel string, reach opt.Option[netip.Addr]) (Inventory, error) {
	return readInventory(tunnel, reach, overlay{})
}

// ParseMessage parses the body of a kernel message twice, as a list and as an announcement.
func ParseMessage(t interface{ Errorf(string, ...any) }, kind uint16, body []byte) {
	if l, ok := parseLink(body); ok && l.name == "" {
		t.Errorf("a link without a name")
	}
	if a, ok := parseAddress(body); ok && !a.Addr.IsValid() {
		t.Errorf("an invalid address")
	}
	if h, ok := parseRouteHeader(body); ok {
		r := parseKernelRoute(h, body)
		r.ours(1, netMetric)
		_ = r.String()
	}
	f := &eventFilter{
		overlay: func() overlay { return overlay{} },
		links:   map[int]kernelLink{}, addresses: map[int]map[LinkAddress]bool{}, forward: map[uint8]uint32{},
	}
	f.matters(kind, body)
	if kind == unix.RTM_NEWADDR && f.matters(kind, body) {
		t.Errorf("the same address matters twice")
	}
}

// GatewayWatch returns the function that keeps back the changes of a bridge that is just being
// made. again is called with the time until the next pass.
func GatewayWatch(again func(time.Duration)) func([]diff.Change) []diff.Change {
	w := &gatewayWatch{again: again}
	return func(missing []diff.Change) []diff.Change { return w.due(missing, time.Now()) }
}

// Planner is the reconciler's planner.
type Planner struct{ planner }

func (p *Planner) Plan(in Inputs) (State, []subnet.Problem) { return p.plan(in) }

func (p *Planner) Follow(leases subnet.Leases) (State, []subnet.Problem) { return p.follow(leases) }
