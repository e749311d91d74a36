package engine

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/wait"
)

// The control side of an engine (its sockets, its watch of the interface, its files under the
// run directory) must never end the data side: pods' packets flow while no descriptor is left,
// the disk is full or a client misbehaves. After a start, only these end an engine: its context,
// a stop request, a finished hand-over, a data path that ended by itself (the interface was
// deleted), and a data path that could not be resumed after a failed hand-over. Everything else
// is tried again by a retry.

// The pauses between two attempts grow from the first to the last.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 2 * time.Second
)

// retry repeats a step of the control side that fails. It belongs to a single goroutine.
type retry struct {
	log    zerolog.Logger
	step   string // of the log line: subject, verb and remedy
	pause  time.Duration
	failed bool // the last attempt
}

// after logs the first error of a row and waits before the next attempt. It reports whether ctx
// is still alive.
func (r *retry) after(ctx context.Context, err error) bool {
	if !r.failed {
		r.failed, r.pause = true, firstRetry
		r.log.Error().Err(err).Msg(r.step)
	}
	defer func() { r.pause = min(2*r.pause, lastRetry) }()
	return wait.For(ctx, r.pause)
}

// succeeded ends a row of errors.
func (r *retry) succeeded() {
	if r.failed {
		r.log.Info().Msg("recovered: " + r.step)
	}
	r.failed = false
}
