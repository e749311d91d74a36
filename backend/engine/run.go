// Package engine owns the userspace data plane: a process of its own that holds a
// persistent TUN device and the UDP sockets, and is configured over the standard UAPI
// socket, so that wgctrl and wg(8) speak to it as they do to the kernel. It knows nothing
// of leases, of peers, or of who configures it.
package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg"
)

// Options say what to run.
type Options struct {
	Iface  string         // name of the TUN device; it is made when it does not exist
	Kind   Kind           // the implementation; "" or "auto" means DefaultKind
	RunDir string         // directory of the lock file
	Ready  io.WriteCloser // told ReadyLine, or why not, and closed; nil tells nobody
	Log    zerolog.Logger

	Relay  bool // take a running engine's place; having given it up, stand by until it is free
	Queues int  // of a TUN device that is made; 0: as the processors need it. The kind wireguard-go reads one

	Alone bool // the process is for the engine alone: it gives up what a running engine does not need, and adapts to the load
}

// ReadyLine is written to Options.Ready when the engine can be configured. Anything else
// written there is the error that Run returns.
const ReadyLine = "ready\n"

// Run runs an engine in the foreground until ctx ends, the interface is deleted or it is
// ordered to stop, and returns nil then. The TUN device outlives it, addresses and routes
// and all: the next engine takes it over. A second engine for the same interface takes the
// place of the first with Options.Relay, and is refused with ErrRunning without.
func Run(ctx context.Context, o Options) (err error) {
	if o.Kind == "" || o.Kind == "auto" {
		o.Kind = DefaultKind
	}
	if o.Queues == 0 {
		o.Queues = queuesFor(runtime.GOMAXPROCS(0)) // before Alone changes that
	}
	ready := newAnnouncement(o.Ready)
	defer func() { err = errors.Join(err, ready.failed(err)) }()
	for {
		s, err := begin(ctx, o)
		if err != nil {
			return orDone(ctx, err)
		}
		given, err := s.run(ctx, ready)
		if !given {
			s.close()
		}
		if err != nil || !given || !o.Relay {
			return err
		}
		// The main process of a container must not end: it would be started again, and
		// take everything back, for ever.
		o.Log.Info().Msg("standing by until the other engine ends")
		if !free(ctx, o) {
			return nil
		}
		o.Log.Warn().Msg("the other engine ended: taking its place")
	}
}

// orDone drops the error of a wait that ended because it was told to.
func orDone(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

const (
	relayPoll   = 50 * time.Millisecond
	relayWithin = 5 * time.Second // an engine that starts or hands over takes no orders for a moment
)

// begin gets a data path by attempt, and tries again for a while what fails only for now.
func begin(ctx context.Context, o Options) (*station, error) {
	for began := time.Now(); ; {
		s, err := attempt(ctx, o)
		// The kernel may release the lock of one that was killed before its TUN device, which
		// takes a grace period of RCU for each queue: busy until then.
		passing := errors.Is(err, errUnready) || errors.Is(err, unix.EBUSY)
		if !passing || time.Since(began) > relayWithin {
			return s, err
		}
		if !pause(ctx) {
			return nil, ctx.Err()
		}
	}
}

// attempt takes the lock and starts a data path, or takes all that from a running engine.
func attempt(ctx context.Context, o Options) (*station, error) {
	lock, err := takeLock(o.RunDir, o.owner())
	if err == nil {
		s := &station{o: o, lock: lock}
		if err := s.open(); err != nil {
			lock.release()
			return nil, err
		}
		return s, nil
	}
	if !errors.Is(err, ErrRunning) || !o.Relay {
		return nil, err
	}
	s, failed := succeed(ctx, o)
	if failed != nil {
		return nil, fmt.Errorf("%w, and does not hand over: %w", err, failed)
	}
	return s, nil
}

// free waits until no engine runs, and reports whether that came before ctx ended.
func free(ctx context.Context, o Options) bool {
	for {
		if _, running, err := Running(o.RunDir, o.Iface); err == nil && !running {
			return true
		}
		if !pause(ctx) {
			return false
		}
	}
}

// pause waits a little, and reports whether ctx is still alive.
func pause(ctx context.Context) bool {
	t := time.NewTimer(relayPoll)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// queues is how many queues of a TUN device this kind of engine reads.
func (o Options) queues() int {
	if o.Kind == Loden {
		return o.Queues
	}
	return 1
}

// owner is this process as the lock file names it.
func (o Options) owner() Owner { return Owner{Iface: o.Iface, PID: os.Getpid(), Kind: o.Kind} }

// run says that the engine is there, gives up privileges and serves.
func (s *station) run(ctx context.Context, ready *announcement) (given bool, err error) {
	if err := writeOwner(s.lock.File, s.o.owner()); err != nil {
		return false, err
	}
	s.o.Log.Info().Str("engine", string(s.o.Kind)).Int("pid", os.Getpid()).Msg("engine started")
	if s.o.Alone {
		if err := wg.Confine(); err != nil { // in a program built with cgo, or where a filter of system calls forbids it
			s.o.Log.Warn().Err(err).Msg("privileges kept")
		}
		if _, ok := s.path.(*wg.Running); ok {
			s.processors = narrow()
			defer s.processors.stop()
			s.attend()
		}
	}
	return s.serve(ctx, ready)
}

// ended explains why a data path ended by itself: its interface was deleted, which is how
// it is meant to be told, or something is wrong.
func ended(o Options) error {
	if _, err := net.InterfaceByName(o.Iface); err != nil {
		o.Log.Info().Msg("interface deleted, engine ends")
		return nil
	}
	return fmt.Errorf("run engine for %s: the data path ended by itself", o.Iface)
}

// announcement tells once whether the engine came up.
type announcement struct{ w io.WriteCloser }

func newAnnouncement(w io.WriteCloser) *announcement { return &announcement{w: w} }

// done says that the engine is ready.
func (a *announcement) done() error { return a.say(ReadyLine) }

// failed says why the engine did not become ready, unless done came first.
func (a *announcement) failed(err error) error {
	if err == nil {
		return a.say("")
	}
	return a.say(err.Error())
}

func (a *announcement) say(text string) error {
	if a.w == nil {
		return nil
	}
	w := a.w
	a.w = nil
	_, err := io.WriteString(w, text)
	return errors.Join(err, w.Close())
}
