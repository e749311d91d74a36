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

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/backend/linkwatch"
)

// Options say what to run.
type Options struct {
	Iface  string         // name of the TUN device; it is made when it does not exist
	Kind   Kind           // the implementation; "" or "auto" means DefaultKind
	RunDir string         // directory of the lock file
	Ready  io.WriteCloser // told ReadyLine, or why not, and closed; nil tells nobody
	Log    zerolog.Logger
}

// ReadyLine is written to Options.Ready when the engine can be configured. Anything else
// written there is the error that Run returns.
const ReadyLine = "ready\n"

// Run runs an engine in the foreground until ctx ends or the interface is deleted, and
// returns nil then. The TUN device outlives it, addresses and routes and all: the next
// engine takes it over. A second engine for the same interface is refused with ErrRunning.
func Run(ctx context.Context, o Options) (err error) {
	if o.Kind == "" || o.Kind == "auto" {
		o.Kind = DefaultKind
	}
	ready := newAnnouncement(o.Ready)
	defer func() { err = errors.Join(err, ready.failed(err)) }()
	lock, err := takeLock(o.RunDir, Owner{Iface: o.Iface, PID: os.Getpid(), Kind: o.Kind})
	if err != nil {
		return err
	}
	defer lock.release()
	listener, err := listenUAPI(o.Iface)
	if err != nil {
		return err
	}
	defer listener.Close()
	file, err := openTUN(o.Iface)
	if err != nil {
		return err
	}
	path, err := open(o, file)
	if err != nil {
		_ = file.Close() // a data path that got as far has closed it
		return err
	}
	defer path.Close()
	if err := keepTUN(file); err != nil {
		return err
	}
	o.Log.Info().Str("engine", string(o.Kind)).Int("pid", os.Getpid()).Msg("engine started")
	if err := ready.done(); err != nil {
		return err
	}
	return serve(ctx, o, listener, path)
}

// serve answers the UAPI socket and passes MTU changes on until ctx or the data path ends.
func serve(ctx context.Context, o Options, listener net.Listener, path dataPath) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return answer(ctx, listener, path.IpcHandle) })
	group.Go(func() error { return linkwatch.Watch(ctx, o.Iface, path.LinkChanged) })
	group.Go(func() error {
		defer cancel()
		select {
		case <-path.Done():
			return ended(o)
		case <-ctx.Done():
			o.Log.Info().Msg("engine told to stop")
			return nil
		}
	})
	return group.Wait()
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
