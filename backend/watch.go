package backend

import (
	"context"
	"io"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/backend/linkwatch"
	"github.com/loden-net/loden/config/wait"
)

const (
	settle = 50 * time.Millisecond // announcements come in bursts: a single call for each burst
	redial = time.Second           // pause between attempts to connect to an engine
)

// watch notifies about the interface, its addresses and its engine until ctx ends.
func watch(ctx context.Context, name string, notify func()) error {
	events := wait.NewSignal()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return linkwatch.Watch(ctx, name, events.Set) })
	group.Go(func() error { watchEngine(ctx, engine.SocketPath(name), events.Set); return nil })
	group.Go(func() error {
		for events.On(ctx) && wait.For(ctx, settle) {
			events.Clear()
			notify()
		}
		return nil
	})
	return group.Wait()
}

// watchEngine holds a connection to the engine open and calls ended when it breaks: the
// kernel closes it at the moment at which the process ends. In kernel mode the socket does not
// exist, and there are no calls.
func watchEngine(ctx context.Context, path string, ended func()) {
	for {
		if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			_, _ = io.Copy(io.Discard, c)
			stop()
			_ = c.Close()
			ended()
		}
		if !wait.For(ctx, redial) {
			return
		}
	}
}
