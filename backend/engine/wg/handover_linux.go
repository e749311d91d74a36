package wg

import (
	"errors"
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/backend/engine/wg/state"
	"github.com/loden-net/loden/backend/engine/wg/tun"
)

// Files are the open files of a device. Nil: not open.
type Files struct {
	TUN        tun.Files
	UDP4, UDP6 *os.File
}

// Close closes the files that are open.
func (f Files) Close() {
	f.TUN.Close()
	for _, file := range []*os.File{f.UDP4, f.UDP6} {
		if file != nil {
			_ = file.Close() // a second descriptor of the same socket may go on
		}
	}
}

// errEnded is the error of a hand-over that comes too late.
var errEnded = errors.New("the data path has ended")

// HandOver ends the device so that another device, in this process or in another, can go on with
// its state and files, and no packet is lost: see Resume. It waits until the packets that were
// read are sent. The caller wipes the state and closes the files, also after an error.
func (r *Running) HandOver() (s *state.Device, files Files, err error) {
	if files, err = r.files(); err != nil {
		return nil, files, err
	}
	select {
	case <-r.handingOver:
		s = <-r.handingOver
		<-r.done
		return s, files, nil
	case <-r.done:
		return nil, files, errEnded
	}
}

// files returns second descriptors of the open files.
func (r *Running) files() (f Files, err error) {
	r.mu.RLock() // no new sockets meanwhile
	defer r.mu.RUnlock()
	if f.TUN, err = r.tunnel.(kernelTUN).Duplicate(); err != nil {
		return f, err
	}
	b := r.sockets.Load()
	if b == nil {
		return f, nil
	}
	for _, s := range []struct {
		from socket
		to   **os.File
	}{{b.v4, &f.UDP4}, {b.v6, &f.UDP6}} {
		if s.from == nil {
			continue
		}
		if *s.to, err = s.from.(*conn.Socket).Duplicate(); err != nil {
			return f, err
		}
	}
	return f, nil
}

// Resume makes a device that goes on where the device before was handed over. It does not read
// until it is started. It owns the files from here on, also when it fails; the caller wipes the
// state.
func Resume(files Files, name string, s *state.Device, log zerolog.Logger) (*Device, error) {
	defer Files{UDP4: files.UDP4, UDP6: files.UDP6}.Close() // sockets are used through descriptors of their own
	d, err := New(files.TUN, name, log)
	if err != nil {
		return nil, err
	}
	p := conn.Pair{Port: s.Port}
	if files.UDP4 != nil {
		p.V4, err = conn.Adopt(files.UDP4, false)
	}
	if files.UDP6 != nil && err == nil {
		p.V6, err = conn.Adopt(files.UDP6, true)
	}
	if err == nil {
		err = d.restore(s)
	}
	if err != nil {
		p.Close()
		return nil, errors.Join(fmt.Errorf("resume device: %w", err), d.tunnel.Close())
	}
	b := boundPair(p)
	d.up = b.v4 != nil || b.v6 != nil // Run looks again: the interface may have gone down since
	d.local.SetDown(!d.up)
	if d.up {
		d.sockets.Store(&b)
	}
	return d, nil
}

// Discard closes a device that was resumed and never started.
func (d *Device) Discard() { d.stop() }
