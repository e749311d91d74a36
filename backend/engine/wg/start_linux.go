package wg

import (
	"context"
	"net"
)

// Running is a device that moves packets until Close, or until its interface is deleted.
type Running struct {
	*Device
	cancel context.CancelFunc
	done   chan struct{}
}

// Start runs the device on a goroutine of its own, and waits until its sockets are open: a port that
// another program has is refused in the answer to the request that sets it only then. Call it once,
// and not Run.
func (d *Device) Start() *Running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Running{Device: d, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := d.Run(ctx); err != nil {
			d.log.Warn().Err(err).Msg("data path ended")
		}
	}()
	<-d.begun
	return r
}

// IpcHandle serves one UAPI connection until it ends, and closes it.
func (r *Running) IpcHandle(conn net.Conn) {
	if err := r.Serve(conn); err != nil {
		r.log.Debug().Err(err).Msg("configuration connection broke")
	}
}

// Done is closed when the device has ended, by Close or by itself.
func (r *Running) Done() <-chan struct{} { return r.done }

// Close ends the device and waits until it has released the TUN file and the sockets.
func (r *Running) Close() {
	r.cancel()
	<-r.done
}
