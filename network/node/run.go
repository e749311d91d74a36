package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet/etcd"
)

// Run runs this node until ctx ends, and then returns nil. The data path stays when it
// returns, for whatever reason; Down removes it. Everything above the line reads and
// checks: an error there leaves the host as it was. Below it the machine changes.
func Run(ctx context.Context, s Settings) error {
	if err := s.Validate(); err != nil {
		return err
	}
	node, log := &s.Node, s.Log
	p, err := prepare(ctx, &s)
	if err != nil {
		return err
	}
	defer func() { p.close() }()

	// ---------------------------------------------------------------- the line
	lock, err := lockNode(node.RunDir)
	standBy := node.Wait && errors.Is(err, errAtWork)
	if standBy {
		log.Info().Msg("another loden runs on this node: standing by")
		p.close() // what it saw will be old
		lock, err = awaitLock(ctx, node.RunDir)
	}
	if err != nil {
		return orDone(ctx, err)
	}
	defer lock.Close()
	if standBy {
		if p, err = prepare(ctx, &s); err != nil {
			return err
		}
	}
	return p.run(ctx)
}

// prepared is what a daemon holds that has looked at everything and changed nothing.
type prepared struct {
	version  string
	registry *etcd.Registry
	host     *host
}

// prepare reads and checks. The caller closes what it returns.
func prepare(ctx context.Context, s *Settings) (p prepared, err error) {
	node, log := &s.Node, s.Log
	p.version = s.Version
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.registry, err = openRegistry(ctx, node, log); err != nil {
		return p, err
	}
	known, err := knownNetwork(ctx, node, p.registry)
	if err != nil {
		return p, err
	}
	if p.host, err = openHost(ctx, node, known, log); err != nil {
		return p, err
	}
	if err := p.host.preflight(ctx, known); err != nil {
		return p, err
	}
	return p, p.host.listenable()
}

// close lets go of what prepare opened. It may be called twice.
func (p *prepared) close() {
	if p.host != nil {
		p.host.close()
	}
	if p.registry != nil {
		_ = p.registry.Close() // nothing is under way
	}
	*p = prepared{version: p.version}
}

// run opens what only one process has, and runs the daemon. The caller holds the lock.
func (p *prepared) run(ctx context.Context) error {
	node, h, log := p.host.node, p.host, p.host.log
	unix, tcp, err := listeners(node.RunDir, node.ListenAddress)
	if err != nil {
		return err
	}
	if err := h.openKey(); err != nil {
		return errors.Join(err, unix.Close(), closeIf(tcp))
	}
	d := newDaemon(node, h, p.registry, log)
	d.version = p.version
	d.cache.start(node.Name, h.key.Public())
	log.Info().Str("node", node.Name).Str("version", p.version).Str("engine", string(h.device.Kind())).Str("why", h.device.Reason()).
		Str("firewall", h.firewall.Name()).Stringer("key", h.key.Public()).Msg("starting")
	return d.run(ctx, unix, tcp)
}

// run starts every long-lived goroutine of the daemon and waits for them. It returns nil
// when ctx ends.
func (d *daemon) run(ctx context.Context, unix, tcp net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.api().serve(ctx, unix, tcp) })
	g.Go(func() error { return d.keepLease(ctx) })
	g.Go(func() error { return d.reconciler.Run(ctx, d.node.Resync) })
	g.Go(func() error { return orDone(ctx, d.registry.Watch(ctx, d.cache.offer)) })
	g.Go(func() error { return orDone(ctx, d.registry.WatchNetwork(ctx, d.networkChanged)) })
	g.Go(func() error { return d.cache.run(ctx) })
	for _, watch := range []watcher{network.Watch, d.host.device.Watch, d.host.firewall.Watch} {
		g.Go(func() error { return d.watch(ctx, watch) })
	}
	g.Go(func() error { return d.wire.run(ctx, d.wireOptions) })
	g.Go(func() error { return d.tellSystemd(ctx) })
	err := g.Wait()
	d.log.Info().Msg("stopped; the data path stays (loden down removes it)")
	return err
}

// orDone drops the error of a goroutine that ended because it was told to.
func orDone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// watcher tells of changes in the kernel until its context ends.
type watcher func(ctx context.Context, notify func()) error

// watch keeps a watcher at work: one that failed is started again after a pause, since what
// it looks for is found by the next resync all the same.
func (d *daemon) watch(ctx context.Context, w watcher) error {
	for {
		err := w(ctx, d.reconciler.Kick)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryPause):
			d.log.Warn().Err(err).Msg("watching the kernel again")
		}
	}
}

// ticker returns a channel that ticks, or one that never does when the interval is 0.
func ticker(interval time.Duration) (<-chan time.Time, func()) {
	if interval <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(interval)
	return t.C, t.Stop
}

// tellSystemd says READY once the first pass was complete, and feeds the watchdog. Without
// systemd both do nothing.
func (d *daemon) tellSystemd(ctx context.Context) error {
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read watchdog interval: %w", err)
	}
	ticks, stop := ticker(interval / 2)
	defer stop()
	ready := d.firstPass
	for {
		select {
		case <-ctx.Done():
			_, err := systemd.SdNotify(false, systemd.SdNotifyStopping)
			return err
		case <-ready:
			ready = nil
			if _, err := systemd.SdNotify(false, systemd.SdNotifyReady); err != nil {
				return fmt.Errorf("tell systemd: %w", err)
			}
		case <-ticks:
			if _, err := systemd.SdNotify(false, systemd.SdNotifyWatchdog); err != nil {
				return fmt.Errorf("tell systemd: %w", err)
			}
		}
	}
}

// openRegistry opens the store with the node's settings.
func openRegistry(ctx context.Context, node *config.Node, log zerolog.Logger) (*etcd.Registry, error) {
	return etcd.Open(ctx, EtcdOptions(node), log)
}

// firstLook is how long the first question to etcd may take: long enough for one that is
// there, and short enough to start without one that is not.
const firstLook = 3 * time.Second

// knownNetwork returns the network document as etcd has it now, else as an earlier run left
// it on disk. Nothing known is no error, since run waits for both etcd and the document; a
// document that is wrong is.
func knownNetwork(ctx context.Context, node *config.Node, registry *etcd.Registry) (opt.Option[config.Network], error) {
	ctx, cancel := context.WithTimeout(ctx, firstLook)
	defer cancel()
	n, err := registry.Network(ctx)
	switch {
	case err == nil:
		return opt.Some(n), nil
	case !errors.Is(err, etcd.ErrNoNetwork) && !errors.Is(err, etcd.ErrUnavailable) && ctx.Err() == nil:
		return opt.None[config.Network](), err
	}
	if key, err := backend.ReadKey(node.StateDir); err == nil {
		if _, n, err := loadSaved(node.StateDir, node.Name, key.Public()); err == nil {
			return opt.Some(n), nil
		}
	}
	return opt.None[config.Network](), nil
}

// openKey reads the private key, or makes one.
func (h *host) openKey() error {
	key, created, err := backend.OpenKey(h.node.StateDir)
	if err != nil {
		return err
	}
	if created {
		h.log.Info().Str("file", backend.KeyPath(h.node.StateDir)).Msg("made a private key")
	}
	h.key = key
	return nil
}
