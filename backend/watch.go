package backend

import (
	"context"
	"io"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/backend/linkwatch"
)

const (
	settle = 50 * time.Millisecond // announcements come in bursts: one call for each
	redial = time.Second           // how often an engine that is away is looked for
)

// Watch calls notify when the interface or an address on it changed, or when the userspace
// engine ended: when it is time to ask for Changes. A burst of events makes one call. It
// blocks until ctx ends and returns nil then; notify must be quick.
func (d *Device) Watch(ctx context.Context, notify func()) error {
	events := make(chan struct{}, 1)
	event := func() {
		select {
		case events <- struct{}{}:
		default:
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return linkwatch.Watch(ctx, d.name, event) })
	group.Go(func() error { watchEngine(ctx, engine.SocketPath(d.name), event); return nil })
	group.Go(func() error {
		for wait(ctx, events) && pause(ctx, settle) {
			select {
			case <-events:
			default:
			}
			notify()
		}
		return nil
	})
	return group.Wait()
}

// watchEngine holds a connection to the engine open and calls ended when it breaks, which
// the kernel sees to at the moment the process ends. In kernel mode there is nothing to
// connect to.
func watchEngine(ctx context.Context, path string, ended func()) {
	for {
		if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			_, _ = io.Copy(io.Discard, c)
			stop()
			_ = c.Close()
			ended()
		}
		if !pause(ctx, redial) {
			return
		}
	}
}

// wait waits for an event, and reports whether it came before ctx ended.
func wait(ctx context.Context, events <-chan struct{}) bool {
	select {
	case <-events:
		return true
	case <-ctx.Done():
		return false
	}
}

// pause waits for d, and reports whether ctx is still alive.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
