package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/loden-net/loden/backend/engine/wg"
	"github.com/loden-net/loden/backend/engine/wg/state"
)

// resumable is a data path whose state another engine can resume. wireguard-go's is not: it
// ends, and the next engine starts with an unconfigured data path.
type resumable interface {
	HandOver() (*state.Device, wg.Files, error)
}

// multiQueueRefusal is told to an engine of an older version.
const multiQueueRefusal = "the TUN device has several queues, which your version does not know: " +
	"end the running engine and delete the interface, then start yours"

// handOver hands files and state over to the engine that asks for them, and reports whether
// that engine has them now. Otherwise the instance resumes its data path. UAPI connections
// wait in the socket's queue meanwhile.
func (s *instance) handOver(a *pendingRequest) (done bool, err error) {
	defer a.conn.Close()
	if s.multiQueue && a.Queues < maxQueues {
		// The other engine would leave packets in the further queues, or could not even attach.
		s.o.Log.Warn().Msg("not handed over: the other engine knows no TUN device with several queues")
		_ = sendReply(a.conn, reply{Refused: multiQueueRefusal}, nil) // the client may have gone
		return false, nil
	}
	began := time.Now()
	_ = a.conn.SetDeadline(began.Add(handOverWithin)) // fails on a closed connection only
	left, files, err := s.detachPath(a.request)
	if err != nil {
		s.o.Log.Warn().Err(err).Msg("not handed over: the data path goes on here")
		_ = sendReply(a.conn, reply{Refused: err.Error()}, nil) // the client may have gone
		return false, nil
	}
	if left != nil {
		defer left.Wipe()
	}
	s.stamps.Close() // before the next engine reads the file; startDevice opens it again
	failed := s.transfer(a, left, files)
	if failed == nil {
		files.Close()
		s.files().close()
		s.o.Log.Info().Stringer("took", time.Since(began).Round(time.Microsecond)).Bool("sessions", left != nil).Msg("handed over to another engine")
		return true, nil
	}
	s.o.Log.Warn().Err(failed).Msg("not handed over: the other engine did not take it")
	return false, s.resumePath(left, files)
}

// detachPath ends the data path, and returns its state and files when both engines can hand
// state over. After an error (no descriptor is left for the duplicates) the data path goes on.
func (s *instance) detachPath(r request) (*state.Device, wg.Files, error) {
	path, can := s.path.(resumable)
	if can && r.Kind == s.o.Kind && r.State == state.Version {
		left, files, err := path.HandOver()
		if err != nil {
			files.Close()
		}
		return left, files, err
	}
	s.path.Close()
	return nil, wg.Files{}, nil
}

// transfer sends the files and the state, waits for the acknowledgment, and commits.
func (s *instance) transfer(a *pendingRequest, left *state.Device, files wg.Files) error {
	var text []byte
	if left != nil {
		text = state.Encode(left)
		defer clear(text)
	}
	all := s.files()
	all.add(files)
	if err := sendReply(a.conn, reply{Size: len(text)}, all); err != nil {
		return fmt.Errorf("send files: %w", err)
	}
	if err := sendState(a.conn, text); err != nil {
		return fmt.Errorf("send state: %w", err)
	}
	if err := expectWord(a.conn, wordAcknowledge); err != nil {
		return fmt.Errorf("wait for acknowledgment: %w", err)
	}
	return sendWord(a.conn, wordCommit)
}

// resumePath starts the data path again after a hand-over that failed.
func (s *instance) resumePath(left *state.Device, files wg.Files) (err error) {
	if s.processors != nil {
		s.processors.load() // a new data path counts the processors
	}
	defer s.adaptToLoad()
	if left == nil {
		s.path, err = s.newPath()
		return err
	}
	d, err := wg.Resume(files, s.o.Iface, left, s.o.Log)
	if err != nil {
		return err
	}
	s.disableOffloads(d)
	s.path = s.startDevice(d)
	return nil
}

// errNoAnswer means that the running engine does not answer on its control socket at the
// moment: it starts, hands over, or ends.
var errNoAnswer = errors.New("the running engine does not answer on its control socket")

// takeOver takes files and state from the running engine. Its error is errNoAnswer when it is
// worth trying again.
func takeOver(ctx context.Context, o Options) (_ *instance, err error) {
	conn, err := dialControl(ctx, o.RunDir, o.Iface)
	if err != nil {
		return nil, errors.Join(errNoAnswer, err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * handOverWithin)) // fails on a closed connection only
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer, files, err := call(conn, request{Version: protocol, Do: opHandOver, Kind: o.Kind, State: state.Version, Queues: maxQueues})
	if err != nil {
		return nil, errors.Join(errNoAnswer, err)
	}
	defer func() {
		if err != nil {
			files.close()
		}
	}()
	if answer.Refused != "" || files[lockFileName] == nil || files[uapiFileName] == nil {
		return nil, fmt.Errorf("the running engine refused: %.200q", answer.Refused)
	}
	s := &instance{o: o, lock: &lockFile{files[lockFileName]}, uapi: files[uapiFileName]}
	start, discard, err := s.prepare(conn, answer.Size, files)
	if err != nil {
		return nil, err
	}
	err = sendWord(conn, wordAcknowledge)
	if err == nil {
		err = expectWord(conn, wordCommit)
	}
	if err != nil { // the old engine resumes, or it is dead and its lock is free
		discard()
		return nil, errors.Join(errNoAnswer, err)
	}
	return s, start()
}
