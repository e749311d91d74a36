package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/loden-net/loden/backend/engine/wg"
	"github.com/loden-net/loden/backend/engine/wg/stamps"
	"github.com/loden-net/loden/backend/engine/wg/state"
	"github.com/loden-net/loden/backend/engine/wg/tun"
	"github.com/loden-net/loden/backend/linkwatch"
)

// instance is a running engine: its lock, its UAPI listener and its data path.
type instance struct {
	o    Options
	lock *lockFile
	uapi *os.File // listening; each round of serve accepts from a duplicate
	path dataPath

	stamps     *stamps.File // nil: the implementation does not record initiations
	multiQueue bool         // the TUN device may have several queues
	processors *processors  // nil: the process has other work, and keeps all processors
	memory     *memory      // nil: the process has other work, and keeps its memory
}

// adaptToLoad makes the number of processors follow the load of the data path.
func (s *instance) adaptToLoad() {
	if path, ok := s.path.(*wg.Running); ok && s.processors != nil {
		path.OnLoad(s.processors.load)
	}
}

// files are the files that the next engine gets, whatever its kind.
func (s *instance) files() namedFiles {
	return namedFiles{lockFileName: s.lock.File, uapiFileName: s.uapi}
}

// open listens for UAPI and starts an unconfigured data path. The caller holds the lock.
func (s *instance) open() error {
	listener, err := listenUAPI(s.o.Iface)
	if err != nil {
		return err
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	if s.uapi, err = listener.File(); err != nil {
		return errors.Join(fmt.Errorf("listen for configuration: %w", err), os.Remove(SocketPath(s.o.Iface)))
	}
	s.path, err = s.newPath()
	if err != nil {
		err = errors.Join(err, s.uapi.Close(), os.Remove(SocketPath(s.o.Iface)))
	}
	return err
}

// newPath starts an unconfigured data path on the interface.
func (s *instance) newPath() (dataPath, error) {
	files, err := openTUN(s.o.Iface, s.o.queues())
	if err != nil {
		return nil, err
	}
	path, err := s.start(files)
	if err != nil {
		files.Close() // an implementation that failed late has closed them already
		return nil, err
	}
	if err := errors.Join(keepTUN(files.Queues[0]), s.inspectTUN(files)); err != nil {
		path.Close()
		s.stamps.Close()
		return nil, err
	}
	return path, nil
}

// inspectTUN reads whether the TUN device may have several queues.
func (s *instance) inspectTUN(files tun.Files) (err error) {
	s.multiQueue, err = isMultiQueue(files.Queues[0])
	if err != nil {
		return fmt.Errorf("read queues of TUN device: %w", err)
	}
	return nil
}

// prepare reads the state that the old engine sends. start runs the data path, discard ends
// it; the files are then the instance's, or closed together with those of the reply.
func (s *instance) prepare(conn *net.UnixConn, size int, files namedFiles) (start func() error, discard func(), err error) {
	if size == 0 {
		start = func() (err error) { s.path, err = s.newPath(); return err }
		return start, func() {}, nil
	}
	text, err := readState(conn, size)
	if err != nil {
		return nil, nil, err
	}
	defer clear(text)
	left, err := state.Decode(text)
	if err != nil {
		return nil, nil, err
	}
	defer left.Wipe()
	inherited := files.dataPath()
	if len(inherited.TUN.Queues) == 0 {
		return nil, nil, errors.New("the running engine sent no TUN device")
	}
	if err := s.inspectTUN(inherited.TUN); err != nil {
		return nil, nil, err
	}
	d, err := wg.Resume(inherited, s.o.Iface, left, s.o.Log)
	if err != nil {
		return nil, nil, err
	}
	s.disableOffloads(d)
	return func() error { s.path = s.startDevice(d); return nil }, d.Discard, nil
}

// startDevice starts a device that has the record of initiations, which is opened anew: a device of
// this instance before has used up what the engine before recorded. It runs in the engine that holds
// the lock, after the engine before has stopped writing.
func (s *instance) startDevice(d *wg.Device) dataPath {
	s.stamps.Close()
	s.stamps = stamps.Open(StampPath(s.o.RunDir, s.o.Iface), s.o.Log)
	d.KeepStamps(s.stamps)
	return d.Start()
}

// StampPath returns the file in which the interface's engine records the newest initiations: see
// package stamps.
func StampPath(runDir, iface string) string { return filepath.Join(runDir, iface+".stamps") }

// disableOffloads applies Options.NoOffload to a data path that must go on also when that fails.
func (s *instance) disableOffloads(d *wg.Device) {
	if err := d.DisableOffloads(s.o.NoOffload); err != nil {
		s.o.Log.Error().Err(err).Msg("an offload stays on")
	}
}

// close ends an instance that was not handed over.
func (s *instance) close() {
	if s.path != nil {
		s.path.Close()
	}
	s.stamps.Close()
	_ = os.Remove(SocketPath(s.o.Iface))
	_ = os.Remove(ControlPath(s.o.RunDir, s.o.Iface))
	s.files().close()
}

// serve answers the UAPI socket, reports changes of the interface to the data path and answers
// requests, until ctx or the data path ends, a client asks the engine to stop, or the instance
// is handed over, which handedOver reports. See retry for what does not end it.
func (s *instance) serve(ctx context.Context, ready *announcement) (handedOver bool, err error) {
	control := controlServer{log: s.o.Log, status: s.status, listen: func() (*net.UnixListener, error) { return listenControl(s.o.RunDir, s.o.Iface) }}
	defer func() { control.close() }()
	if control.listener, err = control.listen(); err != nil { // controlServer tries again
		s.o.Log.Error().Err(err).Msg("the control socket is not open yet")
	}
	if err := ready.done(); err != nil { // the process that started this engine has gone
		s.o.Log.Warn().Err(err).Msg("not reported as ready")
	}
	for {
		a, err := s.serveUntilRequest(ctx, &control)
		if err != nil || a == nil {
			return false, err
		}
		if a.Do == opStop {
			s.o.Log.Info().Msg("engine asked to stop")
			_ = errors.Join(sendReply(a.conn, reply{}, nil), a.conn.Close()) // the client may have gone
			return false, nil
		}
		if handedOver, err := s.handOver(a); handedOver || err != nil {
			return handedOver, err
		}
	}
}

// serveUntilRequest serves until ctx or the data path ends, or a request comes. Its error is
// that of a data path that ended by itself.
func (s *instance) serveUntilRequest(ctx context.Context, control *controlServer) (a *pendingRequest, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group sync.WaitGroup
	group.Go(func() { s.serveUAPI(ctx) })
	group.Go(func() { s.watchLink(ctx, linkwatch.Watch) })
	group.Go(func() {
		defer cancel()
		a = control.await(ctx)
	})
	select {
	case <-s.path.Done():
		err = explainEnd(s.o)
		cancel()
	case <-ctx.Done():
	}
	group.Wait()
	if err != nil && a != nil {
		return nil, errors.Join(err, a.conn.Close())
	}
	return a, err
}

// serveUAPI answers the UAPI socket until ctx ends.
func (s *instance) serveUAPI(ctx context.Context) {
	again := retry{log: s.o.Log, step: "the UAPI socket is not served: free descriptors"}
	for ctx.Err() == nil {
		listener, err := net.FileListener(s.uapi)
		if err != nil {
			again.after(ctx, err)
			continue
		}
		again.succeeded()
		acceptUAPI(ctx, s.o.Log, listener, func(c net.Conn) {
			defer s.memory.used()
			s.path.IpcHandle(c)
		})
	}
}

// watchLink reports changes of the interface to the data path until ctx ends. While the watch
// fails, it reports a change at every attempt, so that no change is missed.
func (s *instance) watchLink(ctx context.Context, watch func(ctx context.Context, name string, changed func()) error) {
	again := retry{log: s.o.Log, step: "changes of the interface are not announced and are looked for at intervals"}
	for ctx.Err() == nil {
		err := watch(ctx, s.o.Iface, func() { again.succeeded(); s.path.LinkChanged() })
		if err != nil && again.after(ctx, err) {
			s.path.LinkChanged()
		}
	}
}
