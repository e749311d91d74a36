package network

import (
	"context"
	"path/filepath"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/subnet"
)

// The names of the parts, in the order in which they are applied. A part's name is also the
// Part of each of its changes: in logs, in `loden plan` and in the metrics. The part that
// the CNI configuration belongs to is called "cni".
const (
	firewallPart = "firewall"
	sysctlsPart  = "sysctls"
	devicePart   = "device"
	routesPart   = "routes"
	envPart      = "env"
)

// Part is the shape that every subsystem has: list the observed state, compare it with the
// desired state, return the changes. Running the changes and asking again gives an empty
// list. For the zero State the host holds no object of ours.
type Part struct {
	Name    string
	Changes func(context.Context, State) ([]diff.Change, error)

	// Follow returns the changes from a desired state that the part has to another that differs in
	// its peers alone. It looks at no more than that difference. Nil: the part does not depend on
	// leases.
	Follow func(ctx context.Context, from, to State) ([]diff.Change, error)

	// Independent says that no change rests on an earlier change of the part, so that a
	// family whose change fails does not stop the other.
	Independent bool

	// Problems returns faults of the host that keep the part's objects from having their effect, and that
	// the part cannot mend, after the part's changes have run. It may be nil.
	Problems func(context.Context, State) ([]subnet.Problem, error)

	// Readiness marks a part whose presence tells other programs that the data path is in
	// place, such as subnet.env. It is not brought up to date after an earlier part's error.
	Readiness bool
}

// list returns the part's changes under the part's own name.
func (p Part) list(ctx context.Context, want State) ([]diff.Change, error) {
	changes, err := p.Changes(ctx, want)
	for i := range changes {
		changes[i].Part = p.Name
	}
	return changes, err
}

// PartOptions are the subsystems and files that the parts of a node work on.
type PartOptions struct {
	SubnetFile string
	RunDir     string // holds the original values of kernel settings
	Device     device // a *backend.Device, or a fake
	Key        backend.PrivateKey
	Firewall   ruleset // a *firewall.Firewall, or a fake
	Observer   *Observer
	Interface  string // of the tunnel
}

// device is the seam to the WireGuard interface.
type device interface {
	Changes(context.Context, backend.PrivateKey, opt.Option[backend.Config]) ([]diff.Change, error)
	Follow(ctx context.Context, from, to backend.Config) ([]diff.Change, error)
}

// ruleset is the seam to the firewall.
type ruleset interface {
	Changes(context.Context, firewall.Config) ([]diff.Change, error)
	Problems(context.Context, firewall.Config) ([]firewall.Problem, error)
}

// Parts returns the parts of a node in the order of their dependencies. The guard is there
// before any packet is forwarded, and is removed last. Sysctls come before the interface,
// which changes a sysctl by itself; routes need the interface; subnet.env is the
// readiness marker of all of them. The CNI configuration is the caller's part, and the last.
func Parts(o PartOptions) []Part {
	routes := routes{tunnel: o.Interface, observe: o.Observer.inventory, bridge: &gatewayWatch{again: o.Observer.again}}
	sysctls := sysctls{before: filepath.Join(o.RunDir, "sysctls-found.json"), shared: routes.shared}
	env := envFile{path: o.SubnetFile}
	return []Part{
		{Name: firewallPart, Changes: func(ctx context.Context, want State) ([]diff.Change, error) {
			return o.Firewall.Changes(ctx, want.Firewall)
		}, Problems: func(ctx context.Context, want State) ([]subnet.Problem, error) {
			found, err := o.Firewall.Problems(ctx, want.Firewall)
			var problems []subnet.Problem
			for _, p := range found {
				problems = append(problems, subnet.Problem{Object: p.Object, Reason: p.Reason})
			}
			return problems, err
		}},
		{Name: sysctlsPart, Independent: true, Changes: func(ctx context.Context, want State) ([]diff.Change, error) {
			return sysctls.changes(ctx, want.Sysctls)
		}},
		DevicePart(o.Device, o.Key),
		{Name: routesPart, Independent: true, Changes: func(ctx context.Context, want State) ([]diff.Change, error) {
			return routes.changes(ctx, want.Routes, want.Gateways)
		}},
		{Name: envPart, Readiness: true, Changes: func(ctx context.Context, want State) ([]diff.Change, error) {
			return env.changes(ctx, want.Env)
		}},
	}
}

// DevicePart returns the part of the WireGuard interface, the only part that depends on leases.
func DevicePart(d device, key backend.PrivateKey) Part {
	return Part{Name: devicePart, Changes: func(ctx context.Context, want State) ([]diff.Change, error) {
		return d.Changes(ctx, key, want.Device)
	}, Follow: func(ctx context.Context, from, to State) ([]diff.Change, error) {
		return d.Follow(ctx, from.Device.Or(backend.Config{}), to.Device.Or(backend.Config{}))
	}}
}
