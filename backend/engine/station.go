package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/backend/engine/wg"
	"github.com/loden-net/loden/backend/engine/wg/state"
	"github.com/loden-net/loden/backend/linkwatch"
)

// station is a running engine: what it holds, and its data path.
type station struct {
	o    Options
	lock *lockFile
	uapi *os.File // listening; each serve accepts from a copy
	path dataPath

	several    bool        // the TUN device may have several queues
	processors *processors // nil: they are not ours to change
}

// attend adapts the processors to the load of the data path.
func (s *station) attend() {
	if path, ok := s.path.(*wg.Running); ok && s.processors != nil {
		path.OnLoad(s.processors.load)
	}
}

// belongings are the files that go to the next engine, whatever kind it is.
func (s *station) belongings() belongings {
	return belongings{lockBelonging: s.lock.File, uapiBelonging: s.uapi}
}

// open makes a station of one's own. The caller holds the lock.
func (s *station) open() error {
	listener, err := listenUAPI(s.o.Iface)
	if err != nil {
		return err
	}
	defer listener.Close()
	listener.SetUnlinkOnClose(false)
	if s.uapi, err = listener.File(); err != nil {
		return errors.Join(fmt.Errorf("listen for configuration: %w", err), os.Remove(SocketPath(s.o.Iface)))
	}
	s.path, err = s.fresh()
	if err != nil {
		err = errors.Join(err, s.uapi.Close(), os.Remove(SocketPath(s.o.Iface)))
	}
	return err
}

// fresh starts a data path that is not configured, on the interface.
func (s *station) fresh() (dataPath, error) {
	files, err := openTUN(s.o.Iface, s.o.queues())
	if err != nil {
		return nil, err
	}
	path, err := open(s.o, files)
	if err != nil {
		files.Close() // a data path that got as far has closed them
		return nil, err
	}
	if err := errors.Join(keepTUN(files.Queues[0]), s.look(files)); err != nil {
		path.Close()
		return nil, err
	}
	return path, nil
}

// look finds out what kind of a TUN device it is.
func (s *station) look(files wg.TUN) (err error) {
	s.several, err = hasSeveralQueues(files.Queues[0])
	if err != nil {
		return fmt.Errorf("read queues of TUN device: %w", err)
	}
	return nil
}

// prepare reads what the engine before left. begin lets the data path run, or abandon ends
// it; the files then are the station's, or closed with those of the parcel.
func (s *station) prepare(conn *net.UnixConn, size int, files belongings) (begin func() error, abandon func(), err error) {
	if size == 0 {
		begin = func() (err error) { s.path, err = s.fresh(); return err }
		return begin, func() {}, nil
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
	its := files.dataPath()
	if len(its.TUN.Queues) == 0 {
		return nil, nil, errors.New("no TUN device is handed over")
	}
	if err := s.look(its.TUN); err != nil {
		return nil, nil, err
	}
	d, err := wg.Resume(its, s.o.Iface, left, s.o.Log)
	if err != nil {
		return nil, nil, err
	}
	return func() error { s.path = d.Start(); return nil }, d.Discard, nil
}

// close ends a station that nobody took over.
func (s *station) close() {
	if s.path != nil {
		s.path.Close()
	}
	_ = os.Remove(SocketPath(s.o.Iface))
	_ = os.Remove(ControlPath(s.o.RunDir, s.o.Iface))
	s.belongings().close()
}

// serve answers the UAPI socket, tells of changes of the interface and takes orders, until
// ctx or the data path ends, or another engine has everything: only that is given.
func (s *station) serve(ctx context.Context, ready *announcement) (given bool, err error) {
	control, err := listenControl(s.o.RunDir, s.o.Iface)
	if err != nil {
		return false, err
	}
	defer control.Close()
	if err := ready.done(); err != nil {
		return false, err
	}
	for {
		a, err := s.until(ctx, control)
		if err != nil || a == nil {
			return false, err
		}
		if a.Do == doStop {
			s.o.Log.Info().Msg("engine ordered to stop")
			return false, errors.Join(sendParcel(a.conn, parcel{}, nil), a.conn.Close())
		}
		if given, err := s.give(a); given || err != nil {
			return given, err
		}
	}
}

// until serves until ctx ends, or an order comes.
func (s *station) until(ctx context.Context, control *net.UnixListener) (a *asked, err error) {
	listener, err := net.FileListener(s.uapi)
	if err != nil {
		return nil, fmt.Errorf("listen for configuration: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_ = control.SetDeadline(time.Time{}) // set by the round before
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return answer(ctx, listener, s.path.IpcHandle) })
	group.Go(func() error { return linkwatch.Watch(ctx, s.o.Iface, s.path.LinkChanged) })
	group.Go(func() (err error) {
		defer cancel()
		a, err = awaitOrder(ctx, control)
		return err
	})
	group.Go(func() error {
		defer cancel()
		select {
		case <-s.path.Done():
			return ended(s.o)
		case <-ctx.Done():
			return nil
		}
	})
	err = group.Wait()
	if err != nil && a != nil {
		return nil, errors.Join(err, a.conn.Close())
	}
	return a, err
}
