package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/loden-net/loden/backend/engine/wg"
	"github.com/loden-net/loden/backend/engine/wg/state"
)

// leaver is a data path that another engine can go on with. wireguard-go is none: it ends,
// and the next engine begins anew.
type leaver interface {
	Leave() (*state.Device, wg.Files, error)
}

// severalRefusal is for an older version.
const severalRefusal = "the TUN device has several queues, which your version does not know: " +
	"end the running engine and delete the interface, then start yours"

// give gives everything to the engine that asks for it, and reports whether that has it
// now. When it has not, s goes on as if nothing had happened. UAPI is not answered
// meanwhile; who connects waits in the socket's queue.
func (s *station) give(a *asked) (given bool, err error) {
	defer a.conn.Close()
	if s.several && a.Queues < maxQueues {
		// It would leave what waits in further queues where it is, or could not even attach.
		s.o.Log.Warn().Msg("not handed over: the other engine knows no TUN device with several queues")
		_ = sendParcel(a.conn, parcel{Refused: severalRefusal}, nil) // it may be gone
		return false, nil
	}
	began := time.Now()
	_ = a.conn.SetDeadline(began.Add(giveWithin)) // fails on a closed one only
	left, files := s.leave(a.order)
	if left != nil {
		defer left.Wipe()
	}
	failed := s.send(a, left, files)
	if failed == nil {
		files.Close()
		s.belongings().close()
		s.o.Log.Info().Dur("took", time.Since(began)).Bool("sessions", left != nil).Msg("handed over to another engine")
		return true, nil
	}
	s.o.Log.Warn().Err(failed).Msg("not handed over: the other engine did not take it")
	return false, s.goOn(left, files)
}

// leave ends the data path, and returns what it leaves where both engines can do that.
func (s *station) leave(o order) (*state.Device, wg.Files) {
	l, can := s.path.(leaver)
	if can && o.Kind == s.o.Kind && o.State == state.Version {
		left, files, err := l.Leave()
		if err == nil {
			return left, files
		}
		files.Close()
		s.o.Log.Warn().Err(err).Msg("nothing to hand over but the interface")
	}
	s.path.Close()
	return nil, wg.Files{}
}

// send sends the parcel and waits for the other's word.
func (s *station) send(a *asked, left *state.Device, files wg.Files) error {
	var text []byte
	if left != nil {
		text = state.Encode(left)
		defer clear(text)
	}
	all := s.belongings()
	all.add(files)
	if err := sendParcel(a.conn, parcel{Size: len(text)}, all); err != nil {
		return fmt.Errorf("send files: %w", err)
	}
	if err := sendState(a.conn, text); err != nil {
		return fmt.Errorf("send state: %w", err)
	}
	if err := hear(a.conn, have); err != nil {
		return fmt.Errorf("wait for its word: %w", err)
	}
	return say(a.conn, yours)
}

// goOn starts the data path again after nobody took it.
func (s *station) goOn(left *state.Device, files wg.Files) (err error) {
	if s.processors != nil {
		s.processors.load() // a data path counts them when it is made
	}
	defer s.attend()
	if left == nil {
		s.path, err = s.fresh()
		return err
	}
	d, err := wg.Resume(files, s.o.Iface, left, s.o.Log)
	if err != nil {
		return err
	}
	s.path = d.Start()
	return nil
}

// errUnready means that the running engine cannot be asked at the moment.
var errUnready = errors.New("it takes no orders")

// succeed takes everything from the running engine.
func succeed(ctx context.Context, o Options) (_ *station, err error) {
	conn, err := dialControl(ctx, o.RunDir, o.Iface)
	if err != nil {
		return nil, errors.Join(errUnready, err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * giveWithin)) // fails on a closed one only
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p, files, err := place(conn, order{Version: protocol, Do: doGive, Kind: o.Kind, State: state.Version, Queues: maxQueues})
	if err != nil {
		return nil, errors.Join(errUnready, err)
	}
	defer func() {
		if err != nil {
			files.close()
		}
	}()
	if p.Refused != "" || files[lockBelonging] == nil || files[uapiBelonging] == nil {
		return nil, fmt.Errorf("it says: %.200q", p.Refused)
	}
	s := &station{o: o, lock: &lockFile{files[lockBelonging]}, uapi: files[uapiBelonging]}
	begin, abandon, err := s.prepare(conn, p.Size, files)
	if err != nil {
		return nil, err
	}
	err = say(conn, have)
	if err == nil {
		err = hear(conn, yours)
	}
	if err != nil { // it goes on, or it is dead and its lock is free
		abandon()
		return nil, errors.Join(errUnready, err)
	}
	return s, begin()
}
