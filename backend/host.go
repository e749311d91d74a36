package backend

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config/opt"
)

// host is the seam between a Device, which decides, and the machine, on which the decisions
// take effect. The real host is made by Open, a host in memory by NewFake.
type host struct {
	links   links
	tunnels tunnels
	engines engines
	// portFree returns ErrPortTaken when a program has the UDP port, in either family.
	portFree func(ctx context.Context, port uint16) error
	record   record
}

// links are the network interfaces of the host.
type links interface {
	// observe lists the interface; an absent interface is no error.
	observe(name string) (opt.Option[link], error)
	// edit changes the interface that exists under the name.
	edit(name string, e linkEdit) error
	// add makes an interface of the kernel's WireGuard.
	add(name string) error
	// remove deletes the interface; an absent interface is no error.
	remove(name string) error
	// leads reports whether the route to an address leads into the interface.
	leads(name string, to netip.Addr) bool
	close()
}

// tunnels are the WireGuard devices of the host, in the kernel or in an engine.
type tunnels interface {
	// device lists the WireGuard device; none while no engine answers under the name.
	device(ctx context.Context, name string) (opt.Option[live], error)
	// configure applies a configuration in a single step.
	configure(ctx context.Context, name string, c wgtypes.Config) error
	close() error
}

// engines is the userspace engine of a single interface: a process that this program starts
// and ends, and that outlives it.
type engines interface {
	// observe returns the running engine, none without a running engine, and whether files
	// of a dead engine are left.
	observe() (owner opt.Option[engine.Owner], files bool, err error)
	// possible returns the reason, with its remedy, for which no engine can run here.
	possible() error
	// start returns when an engine of that kind can be configured. A running engine of
	// another kind, or without its socket, is ended first.
	start(ctx context.Context, kind engine.Kind) error
	// kill ends the running engine without asking it, by SIGKILL, and waits for its end.
	kill(ctx context.Context) error
	// progress returns the CPU time that the running engine has used since its start; 0 when
	// this process cannot see the engine.
	progress(ctx context.Context) time.Duration
	// status asks the engine for its own account, in a moment; zero without an answer.
	status(ctx context.Context) engine.Status
	// clear waits for the engine's end, forces it after a while, and deletes its files.
	clear(ctx context.Context) error
}

// openHost opens this machine. The caller closes links and tunnels.
func openHost(o Options) (host, error) {
	l, err := openLinks()
	if err != nil {
		return host{}, err
	}
	wg, err := openWireguard()
	if err != nil {
		l.close()
		return host{}, err
	}
	return host{links: l, tunnels: wg, engines: newEngineProcess(o), portFree: portFree,
		record: &endpointFile{path: EndpointPath(o.RunDir, o.Name)}}, nil
}

// answerWithin is how long WireGuard may take for an answer: an idle userspace engine needs
// 1.2 s to set up 5000 peers (measured in November 2026).
const answerWithin = 30 * time.Second

// errNoAnswer is the cause of a call's end after answerWithin.
var errNoAnswer = fmt.Errorf("no answer within %v", answerWithin)
