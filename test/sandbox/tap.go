package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// tapBuffer is the receive buffer of a Tap in bytes: some 10,000 full frames, so that a
// reader that waits for the processor misses no frame.
const tapBuffer = 16 << 20

// Tap sees every frame that enters a switch, once. Frames from the moment of NewTap on
// wait in the kernel until Run reads them.
type Tap struct {
	conn   *socket.Conn
	bridge int // index of the bridge, which repeats the frames of its ports
}

// NewTap opens a tap on s. The caller closes it.
func (s *Switch) NewTap() (*Tap, error) {
	t := &Tap{}
	err := s.host.Do(func() (err error) {
		t.conn, t.bridge, err = packetSocket(bridgeName)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open tap: %w", err)
	}
	return t, nil
}

// packetSocket opens a packet socket on every link of the calling thread's namespace and
// returns the index of the link called name.
func packetSocket(name string) (*socket.Conn, int, error) {
	// Protocol 0 receives no frame yet: the buffer must be large before the first frame.
	conn, err := socket.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0, "packet", nil)
	if err != nil {
		return nil, 0, err
	}
	var ifr *unix.Ifreq
	if ifr, err = unix.NewIfreq(name); err == nil {
		err = control(conn, func(fd int) error { return unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr) })
	}
	if err == nil {
		err = conn.SetsockoptInt(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, tapBuffer)
		if errors.Is(err, unix.EPERM) { // in a user namespace: as much as is allowed
			err = conn.SetsockoptInt(unix.SOL_SOCKET, unix.SO_RCVBUF, tapBuffer)
		}
	}
	if err == nil {
		err = conn.Bind(&unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_ALL)})
	}
	if err != nil {
		return nil, 0, errors.Join(err, conn.Close())
	}
	return conn, int(ifr.Uint32()), nil
}

// Run calls see for each frame until ctx is done, and then once more for every frame that
// had arrived by then. It blocks; see must not keep the frame.
func (t *Tap) Run(ctx context.Context, see func(frame []byte)) error {
	buf := make([]byte, 64<<10)
	for {
		flags := 0
		n, from, err := t.conn.Recvfrom(ctx, buf, flags)
		if ctx.Err() != nil {
			return t.drain(buf, see)
		}
		if err != nil {
			return fmt.Errorf("read tap: %w", err)
		}
		t.pass(buf[:n], from, see)
	}
}

// drain passes on the frames that wait in the socket without blocking.
func (t *Tap) drain(buf []byte, see func([]byte)) error {
	return control(t.conn, func(fd int) error {
		for {
			n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return nil
			case err != nil:
				return os.NewSyscallError("recvfrom", err)
			}
			t.pass(buf[:n], from, see)
		}
	})
}

// pass hands on frames that a port received, not the copies that the bridge sends out of its ports.
func (t *Tap) pass(frame []byte, from unix.Sockaddr, see func([]byte)) {
	link, ok := from.(*unix.SockaddrLinklayer)
	if ok && link.Pkttype != unix.PACKET_OUTGOING && link.Ifindex != t.bridge {
		see(frame)
	}
}

// Missed returns how many frames the kernel dropped since the last call because Run was
// too slow. A proof that no such frame was on the wire counts only if it is 0.
func (t *Tap) Missed() (uint32, error) {
	var missed uint32
	err := control(t.conn, func(fd int) error {
		stats, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil {
			missed = stats.Drops
		}
		return os.NewSyscallError("getsockopt", err)
	})
	return missed, err
}

// Close ends the tap.
func (t *Tap) Close() error { return t.conn.Close() }

// control runs fn on the socket's descriptor.
func control(conn *socket.Conn, fn func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = fn(int(fd)) })
	return errors.Join(err, inner)
}

// networkOrder swaps the bytes of a protocol number, as packet(7) wants it.
func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }
