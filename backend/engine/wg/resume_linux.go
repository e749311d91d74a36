package wg

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/state"
)

// Files are what a device moves packets between. Nil: not open.
type Files struct {
	TUN        TUN
	UDP4, UDP6 *os.File
}

// Close closes the files that are open.
func (f Files) Close() {
	f.TUN.Close()
	for _, file := range []*os.File{f.UDP4, f.UDP6} {
		if file != nil {
			_ = file.Close() // another descriptor of it goes on
		}
	}
}

// errEnded is why there is nothing to leave.
var errEnded = errors.New("the data path has ended")

// Leave ends the device so that another one, in this process or in another, can go on with
// what it returns and no packet is lost: see Resume. The caller wipes the state and closes
// the files, also after an error.
func (r *Running) Leave() (s *state.Device, files Files, err error) {
	if files, err = r.files(); err != nil {
		return nil, files, err
	}
	select {
	case <-r.leaving:
		s = <-r.leaving
		<-r.done
		return s, files, nil
	case <-r.done:
		return nil, files, errEnded
	}
}

// files returns second descriptors of what is open.
func (r *Running) files() (f Files, err error) {
	r.mu.RLock() // no new sockets meanwhile
	defer r.mu.RUnlock()
	if f.TUN, err = r.tunnel.(*kernelTUN).files.duplicate(); err != nil {
		return f, fmt.Errorf("duplicate TUN file: %w", err)
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
		if *s.to, err = duplicate(s.from.(*udpSocket).raw); err != nil {
			return f, fmt.Errorf("duplicate UDP socket: %w", err)
		}
	}
	return f, nil
}

// duplicate returns second descriptors of the files, also of some after an error.
func (t TUN) duplicate() (out TUN, err error) {
	for i, f := range t.all() {
		raw, err := f.SyscallConn()
		if err != nil {
			return out, err
		}
		second, err := duplicate(raw)
		if err != nil {
			return out, err
		}
		if i < len(t.Queues) {
			out.Queues = append(out.Queues, second)
		} else {
			out.Writer = second
		}
	}
	return out, nil
}

// duplicate returns a second descriptor of an open file.
func duplicate(raw syscall.RawConn) (*os.File, error) {
	var fd int
	var failed error
	err := raw.Control(func(old uintptr) { fd, failed = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), ""), nil
}

// Resume makes a device that goes on where the one before left. It reads nothing until it is
// started. It takes the files over, also when it fails; the caller wipes the state.
func Resume(files Files, name string, s *state.Device, log zerolog.Logger) (*Device, error) {
	defer Files{UDP4: files.UDP4, UDP6: files.UDP6}.Close() // sockets are used through descriptors of their own
	d, err := New(files.TUN, name, log)
	if err != nil {
		return nil, err
	}
	b := bound{port: s.Port}
	if files.UDP4 != nil {
		b.v4, err = adoptUDP(files.UDP4, false)
	}
	if files.UDP6 != nil && err == nil {
		b.v6, err = adoptUDP(files.UDP6, true)
	}
	if err == nil {
		err = d.restore(s)
	}
	if err != nil {
		for _, s := range b.all() {
			_ = s.close()
		}
		return nil, errors.Join(fmt.Errorf("resume device: %w", err), d.tunnel.close())
	}
	d.up = b.v4 != nil || b.v6 != nil // it may have gone down since, which the first look then sees
	d.asleep.Store(!d.up)
	if d.up {
		d.sockets.Store(&b)
	}
	return d, nil
}

// Discard ends a device that was resumed and never started.
func (d *Device) Discard() { d.stop() }

// adoptUDP uses a socket that another process opened, with the options it has.
func adoptUDP(file *os.File, v6 bool) (socket, error) {
	c, err := net.FilePacketConn(file)
	if err != nil {
		return nil, fmt.Errorf("use UDP socket: %w", err)
	}
	conn, ok := c.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(errors.New("use UDP socket: it is none"), c.Close())
	}
	s := &udpSocket{conn: conn, v6: v6}
	if s.raw, err = conn.SyscallConn(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s.in.init(s.v6)
	return s, nil
}

func (s *udpSocket) hush() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) } // fails on a closed one only

func (t *kernelTUN) hush() {
	for _, f := range t.files.Queues {
		_ = f.SetReadDeadline(time.Unix(1, 0)) // fails on a closed one only
	}
}
