package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/loden-net/loden/backend/engine/wg"
)

// Status is what a running engine tells of itself on its control socket.
type Status struct {
	Kind Kind `json:"engine"`
	PID  int  `json:"pid"` // as the engine sees itself: see PID
	wg.Status
}

// Offloads is a set of offloads: see wg.Offloads.
type Offloads = wg.Offloads

// ParseOffloads reads a set of offloads: names separated by commas, of tun-rx, tun-tx, udp-rx and
// udp-tx, or the empty text.
func ParseOffloads(text string) (Offloads, error) { return wg.ParseOffloads(text) }

// ErrNoStatus means that the running engine is of a version that does not tell its status.
var ErrNoStatus = errors.New("the running engine is of an older version, which does not tell its status")

// ReadStatus asks the interface's engine for its status. It fails when no engine listens, when the
// engine does not answer before ctx ends, and with ErrNoStatus.
func ReadStatus(ctx context.Context, runDir, iface string) (Status, error) {
	conn, err := dialControl(ctx, runDir, iface)
	if err != nil {
		return Status{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer, files, err := call(conn, request{Version: protocol, Do: opStatus})
	files.close() // there are none
	switch {
	case err != nil && ctx.Err() != nil:
		return Status{}, fmt.Errorf("ask engine of %s for its status: %w", iface, ctx.Err())
	case err != nil:
		return Status{}, fmt.Errorf("ask engine of %s for its status: %w", iface, err)
	case answer.Status == nil:
		return Status{}, ErrNoStatus
	}
	return *answer.Status, nil
}

// status returns the status of the instance.
func (s *instance) status() *Status {
	out := &Status{Kind: s.o.Kind, PID: os.Getpid()}
	if path, ok := s.path.(interface{ Status() wg.Status }); ok {
		out.Status = path.Status()
	}
	return out
}
