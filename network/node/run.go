package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/subnet/etcd"
)

// Run runs this node until ctx ends, and then returns nil. The data path stays when Run
// returns, for whatever reason; Down removes it. Above the line Run reads and checks: an
// error there leaves the host as it was. Below the line the machine changes.
func Run(ctx context.Context, s Settings) error { return realEnvironment().run(ctx, s) }

func (e environment) run(ctx context.Context, s Settings) error {
	p, err := e.prepare(ctx, s)
	if err != nil {
		return err
	}
	defer func() { p.close() }()

	// ---------------------------------------------------------------- the line
	lock, err := lockNode(s.RunDir)
	standBy := s.StandBy && errors.Is(err, errLocked)
	if standBy {
		s.Log.Info().Msg("another loden runs on this node: standing by")
		p.close() // its observations are old when the other daemon ends
		lock, err = awaitLock(ctx, s.RunDir)
	}
	if err != nil {
		return withoutEnd(ctx, err)
	}
	defer lock.Close()
	if standBy {
		if p, err = e.prepare(ctx, s); err != nil {
			return err
		}
	}
	return p.run(ctx)
}

// prepared is a node that has checked everything and changed nothing.
type prepared struct {
	settings Settings
	store    store
	host     *host
}

// prepare reads and checks. The caller closes the result.
func (e environment) prepare(ctx context.Context, s Settings) (p prepared, err error) {
	p.settings = s
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.store, err = e.store(ctx, s); err != nil {
		return p, err
	}
	known, err := knownNetwork(ctx, s, p.store)
	if err != nil {
		return p, err
	}
	if p.host, err = e.openHost(ctx, s, known); err != nil {
		return p, err
	}
	if err := p.host.preflight(ctx, known); err != nil {
		return p, err
	}
	return p, p.host.listenable()
}

// close closes the host and the store. It may be called twice.
func (p *prepared) close() {
	if p.host != nil {
		p.host.close()
	}
	if p.store != nil {
		_ = p.store.Close() // no request is under way
	}
	p.host, p.store = nil, nil
}

// run opens the sockets and the key, and runs the node. The caller holds the lock.
func (p *prepared) run(ctx context.Context) error {
	s, h := p.settings, p.host
	if err := keepRecord(s); err != nil {
		return err
	}
	sweep(s)
	unix, tcp, err := listeners(s.RunDir, s.ListenAddress)
	if err != nil {
		return err
	}
	if err := h.openKey(); err != nil {
		return errors.Join(err, unix.Close(), closeIf(tcp))
	}
	n := newNode(h, p.store)
	n.feed.start(s.Name, h.key.Public())
	s.Log.Info().Str("node", s.Name).Str("version", s.Version).Str("engine", string(h.device.Kind())).Str("reason", h.device.Reason()).
		Str("firewall", h.firewall.Name()).Stringer("key", h.key.Public()).Msg("starting")
	return n.run(ctx, unix, tcp)
}

// run answers on the listeners, starts the node, and waits for its end. It returns nil when
// ctx ends.
func (n *node) run(ctx context.Context, local, tcp net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.api().serve(ctx, local, tcp) })
	n.start(ctx, g, n.host.kernel.Watch, n.host.device.Watch, n.host.firewall.Watch)
	err := g.Wait()
	n.log.Info().Msg("stopped; the data path stays (loden down removes it)")
	return err
}

// start starts the long-lived goroutines of the node, which end with ctx. watchers tell of
// changes in the kernel.
func (n *node) start(ctx context.Context, g *errgroup.Group, watchers ...watcher) {
	g.Go(func() error { return n.keeper.Run(ctx) })
	g.Go(func() error { return n.reconciler.Run(ctx, n.settings.Resync) })
	g.Go(func() error { return withoutEnd(ctx, n.store.Watch(ctx, n.feed.offer)) })
	g.Go(func() error {
		return withoutEnd(ctx, n.store.WatchNetwork(ctx, func(d etcd.Document, err error) { n.documents.take(ctx, d, err) }))
	})
	g.Go(func() error { return n.documents.rollback.Run(ctx) })
	g.Go(func() error { return n.feed.Run(ctx) })
	g.Go(func() error { return n.recorder.Run(ctx) })
	for _, watch := range watchers {
		g.Go(func() error { return n.watch(ctx, watch) })
	}
	g.Go(func() error { return n.sampler.Run(ctx, n.sampleOptions) })
	g.Go(func() error { return n.prober.Run(ctx) })
	g.Go(func() error { return n.hear(ctx) })
	g.Go(func() error { return n.tellSystemd(ctx) })
	if cni := n.host.cni; cni.confDir != "" && cni.binDir != "" {
		ticks, stop := ticker(collectEvery)
		g.Go(func() error { defer stop(); return newLostPods(cni, n.log).Run(ctx, ticks) })
	}
}

// withoutEnd returns err, or nil when err says that ctx ended.
func withoutEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// ticker returns a channel that ticks, or a channel that never ticks for an interval of 0.
func ticker(interval time.Duration) (<-chan time.Time, func()) {
	if interval <= 0 {
		return nil, func() {}
	}
	t := time.NewTicker(interval)
	return t.C, t.Stop
}

// tellSystemd reports READY to systemd after the first complete pass, and feeds the
// watchdog. Without systemd both have no effect.
func (n *node) tellSystemd(ctx context.Context) error {
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("read watchdog interval: %w", err)
	}
	ticks, stop := ticker(interval / 2)
	defer stop()
	ready := n.firstPass
	for {
		state := systemd.SdNotifyWatchdog
		select {
		case <-ctx.Done():
			_, err := systemd.SdNotify(false, systemd.SdNotifyStopping)
			return err
		case <-ready:
			ready, state = nil, systemd.SdNotifyReady
		case <-ticks:
		}
		if _, err := systemd.SdNotify(false, state); err != nil {
			return fmt.Errorf("tell systemd: %w", err)
		}
	}
}
