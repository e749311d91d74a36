package backend

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
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
	group.Go(func() error { watchEngine(ctx, dialEngine(name), events.Set); return nil })
	group.Go(func() error {
		for events.On(ctx) && wait.For(ctx, settle) {
			events.Clear()
			notify()
		}
		return nil
	})
	return group.Wait()
}

// dialEngine returns the way to the UAPI socket of an interface's engine.
func dialEngine(name string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", engine.SocketPath(name))
	}
}

// watchEngine holds a connection to the engine open, and calls event when the connection
// breaks, which is the moment at which the process ends, and when a probe gets no answer.
// In kernel mode the socket does not exist, and there are no calls.
func watchEngine(ctx context.Context, dial func(context.Context) (net.Conn, error), event func()) {
	for {
		if c, err := dial(ctx); err == nil {
			stop := context.AfterFunc(ctx, func() { _ = c.Close() })
			probe(c, event)
			stop()
			_ = c.Close()
			event()
		}
		if !wait.For(ctx, redial) {
			return
		}
	}
}

// The probe is an empty configuration of the cross-platform protocol. It changes no setting,
// takes the lock that every configuration takes, and costs an engine a wake-up; a listing of
// 5000 peers would cost it 30 ms (measured in November 2026).
const (
	probeEvery  = 2 * time.Second
	probeWithin = time.Second // an answer that takes longer is worth a look at the engine
	emptySet    = "set=1\n\n"
)

// probe sends probes until the connection breaks or ctx ends, which closes it. It calls event
// for a probe without an answer in time; the decision that the engine hangs is made by
// Device.Changes.
func probe(c net.Conn, event func()) {
	answers := bufio.NewReader(c)
	asked, pause := false, probeEvery
	for {
		_ = c.SetReadDeadline(time.Now().Add(pause)) // fails on a closed connection, as the read does
		line, err := answers.ReadString('\n')
		switch {
		case err == nil && line == "\n": // the end of an answer
			asked, pause = false, probeEvery
		case err == nil: // "errno=0"
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return
		case asked:
			event()
			pause = probeEvery
		default:
			if _, err := io.WriteString(c, emptySet); err != nil {
				return
			}
			asked, pause = true, probeWithin
		}
	}
}
