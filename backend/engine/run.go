// Package engine owns the userspace data plane: a process of its own that holds a
// persistent TUN device and the UDP sockets, and is configured over the standard UAPI
// socket, so that wgctrl and wg(8) speak to it as they do to the kernel. It does not know
// leases or peers, and serves any UAPI client alike.
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
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/wait"
)

// Options say what to run.
type Options struct {
	Iface  string         // name of the TUN device, which is created if it does not exist
	Kind   Kind           // the implementation; "" or "auto" means DefaultKind
	RunDir string         // directory of the lock file
	Ready  io.WriteCloser // gets ReadyLine or the reason of a failed start, and is closed; nil: not reported
	Log    zerolog.Logger

	Relay  bool // take over from a running engine; after handing over, stand by until no engine runs
	Queues int  // of a TUN device that is created; 0: by the number of processors. The kind wireguard-go reads a single queue

	// Alone says that the process runs nothing but the engine: it gives up the privileges that a
	// running engine does not need, and adapts its processors to the load.
	Alone bool

	// NoOffload turns offloads of the kind loden off, for kernels and network devices that corrupt
	// the packets they cut or join. wireguard-go has no switches, and does not start with it.
	NoOffload Offloads

	// FixedProcessors keeps an engine that is Alone on all processors, under any load.
	FixedProcessors bool
}

// ReadyLine is written to Options.Ready when the engine can be configured. Anything else
// written there is the error that Run returns.
const ReadyLine = "ready\n"

// Run runs an engine in the foreground until ctx ends, the interface is deleted or a client of
// the control socket stops the engine; it then returns nil. The TUN device outlives the engine,
// with its addresses and routes, for the next engine. A second engine for the same interface
// takes over from the first with Options.Relay, and fails with ErrRunning without.
func Run(ctx context.Context, o Options) (err error) {
	if o.Kind == "" || o.Kind == "auto" {
		o.Kind = DefaultKind
	}
	if o.Queues == 0 {
		o.Queues = queuesFor(runtime.GOMAXPROCS(0)) // before Alone changes that
	}
	ready := newAnnouncement(o.Ready)
	defer func() { err = errors.Join(err, ready.failed(err)) }()
	if err := config.CheckInterfaceName(o.Iface); err != nil { // before files and devices get a name that differs from it
		return fmt.Errorf("start engine: %w", err)
	}
	for {
		s, err := acquire(ctx, o)
		if err != nil {
			if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
				return nil // the caller ended the wait
			}
			return err
		}
		handedOver, err := s.run(ctx, ready)
		if !handedOver {
			s.close()
		}
		if err != nil || !handedOver || !o.Relay {
			return err
		}
		// The main process of a container must not end: it would be started again, and the two
		// engines would take over from each other for ever.
		o.Log.Info().Msg("standing by until the other engine ends")
		if !waitUntilFree(ctx, o) {
			return nil
		}
		o.Log.Warn().Msg("the other engine ended: taking its place")
	}
}

const (
	relayPoll   = 50 * time.Millisecond
	relayWithin = 5 * time.Second // an engine that starts or hands over does not answer for a moment
)

// acquire calls tryAcquire, and repeats it for relayWithin after errors that pass by themselves.
func acquire(ctx context.Context, o Options) (*instance, error) {
	for began := time.Now(); ; {
		s, err := tryAcquire(ctx, o)
		// When an engine is killed, the kernel may release its lock before its TUN device, which
		// takes a grace period of RCU for each queue: EBUSY until then.
		temporary := errors.Is(err, errNoAnswer) || errors.Is(err, unix.EBUSY)
		if !temporary || time.Since(began) > relayWithin {
			return s, err
		}
		if !wait.For(ctx, relayPoll) {
			return nil, ctx.Err()
		}
	}
}

// tryAcquire takes the lock and starts a data path, or takes over from a running engine.
func tryAcquire(ctx context.Context, o Options) (*instance, error) {
	lock, err := takeLock(o.RunDir, o.owner())
	if err == nil {
		s := &instance{o: o, lock: lock}
		if err := s.open(); err != nil {
			lock.release()
			return nil, err
		}
		return s, nil
	}
	if !errors.Is(err, ErrRunning) || !o.Relay {
		return nil, err
	}
	s, failed := takeOver(ctx, o)
	if failed != nil {
		return nil, fmt.Errorf("%w, and does not hand over: %w", err, failed)
	}
	return s, nil
}

// waitUntilFree waits until no engine runs, and reports whether that came before ctx ended.
func waitUntilFree(ctx context.Context, o Options) bool {
	for {
		if _, running, err := Running(o.RunDir, o.Iface); err == nil && !running {
			return true
		}
		if !wait.For(ctx, relayPoll) {
			return false
		}
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

// run records the engine in the lock file, gives up privileges and serves.
func (s *instance) run(ctx context.Context, ready *announcement) (handedOver bool, err error) {
	if err := writeOwner(s.lock.File, s.o.owner()); err != nil { // it still names the engine before
		s.o.Log.Warn().Err(err).Msg("the lock file does not name this engine: free space in the run directory")
	}
	s.o.Log.Info().Str("engine", string(s.o.Kind)).Int("pid", os.Getpid()).Msg("engine started")
	if s.o.Alone {
		s.memory = &memory{log: s.o.Log}
		defer s.memory.stop()
		if err := wg.Confine(); err != nil { // the program was built with cgo, or a seccomp filter forbids it
			s.o.Log.Warn().Err(err).Msg("privileges kept")
		}
		if _, ok := s.path.(*wg.Running); ok && !s.o.FixedProcessors {
			s.processors = adaptProcessors()
			defer s.processors.stop()
			s.adaptToLoad()
		}
	}
	return s.serve(ctx, ready)
}

// explainEnd returns nil when the data path ended because its interface was deleted, which is
// the normal way to end an engine, and an error when the interface still exists.
func explainEnd(o Options) error {
	if _, err := net.InterfaceByName(o.Iface); err != nil {
		o.Log.Info().Msg("interface deleted, engine ends")
		return nil
	}
	return fmt.Errorf("run engine for %s: the data path ended by itself", o.Iface)
}

// announcement reports to Options.Ready, once, whether the engine came up.
type announcement struct{ w io.WriteCloser }

func newAnnouncement(w io.WriteCloser) *announcement { return &announcement{w: w} }

// done reports that the engine is ready.
func (a *announcement) done() error { return a.write(ReadyLine) }

// failed reports why the engine did not become ready, unless done came first.
func (a *announcement) failed(err error) error {
	if err == nil {
		return a.write("")
	}
	return a.write(err.Error())
}

func (a *announcement) write(text string) error {
	if a.w == nil {
		return nil
	}
	w := a.w
	a.w = nil
	_, err := io.WriteString(w, text)
	return errors.Join(err, w.Close())
}
