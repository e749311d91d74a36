package conn

import (
	"errors"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2), which x/sys does not have.
type mmsghdr struct {
	unix.Msghdr
	len uint32
}

// Send sends every train, as far as the kernel lets it, and never waits: the peers behind a slow
// uplink must not stop the others. A train for which the socket's buffer has no room is dropped and
// counted, with the error EAGAIN. An error is the last of several. Several
// goroutines may send at once: the kernel lets the datagrams of a socket be sent side by side
// (udp_sendmsg takes the socket's lock for corked datagrams only).
func (s *Socket) Send(out []Outgoing) error {
	b := s.acquire()
	defer s.release(b)
	var last error
	for len(out) > 0 {
		n, err := s.sendSome(b, out)
		for i := range out[:n] {
			out[i].Sent = out[i].Size
		}
		if err != nil {
			last = s.rescue(b, &out[n], err)
			n++
		}
		out = out[n:]
	}
	return last
}

// acquire returns a buffer set that no other goroutine uses.
func (s *Socket) acquire() *sendBuffers {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.idle); n > 0 {
		b := s.idle[n-1]
		s.idle = s.idle[:n-1]
		return b
	}
	return newSendBuffers(s.v6)
}

// release takes back a buffer set that is no longer in use.
func (s *Socket) release(b *sendBuffers) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.idle = append(s.idle, b)
}

// sendSome sends trains until the kernel refuses a train, and returns how many went out.
func (s *Socket) sendSome(b *sendBuffers, out []Outgoing) (int, error) {
	if s.noGSO.Load() || s.narrow.some.Load() {
		for i := range out {
			if s.mustSplit(&out[i]) {
				if i > 0 {
					return b.send(s, out[:min(i, BatchSize)])
				}
				return 0, errSingly
			}
		}
	}
	return b.send(s, out[:min(len(out), BatchSize)])
}

// errSingly makes rescue send the datagrams of a train singly: the kernel is known to refuse the train.
var errSingly = errors.New("the datagrams must be sent singly")

// mustSplit reports whether the kernel is known to refuse a train.
func (s *Socket) mustSplit(o *Outgoing) bool {
	if o.Count == 1 {
		return false
	}
	return s.noGSO.Load() || s.narrow.some.Load() && s.narrow.refuses(o.To.Addr(), o.Segment, time.Now())
}

// rescue tries another way for a train that the kernel refused with err. A train of several
// datagrams is sent singly before its local address is doubted: EINVAL may mean either, since
// older kernels return it for a segment that is larger than the path's MTU. Each single datagram
// is rescued in turn.
func (s *Socket) rescue(b *sendBuffers, o *Outgoing, err error) error {
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	if errors.Is(err, unix.EAGAIN) {
		o.NoRoom = true
		s.full.Add(uint64(o.Count))
		return err
	}
	if o.Count > 1 {
		if errors.Is(err, unix.EIO) { // the network device has no checksum offload: udp(7), UDP_SEGMENT
			s.noGSO.Store(true)
		}
		last := s.sendSingly(b, o)
		if tooLarge := errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EINVAL); tooLarge && o.Sent == o.Size && !o.SourceRefused {
			s.narrow.note(o.To.Addr(), o.Segment, time.Now())
			o.TrainRefused = true
		}
		return last
	}
	if o.Local.IsValid() && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENETUNREACH)) {
		o.SourceRefused = true
		retry := *o
		retry.Local = netip.Addr{}
		if _, err = b.send(s, []Outgoing{retry}); err == nil {
			o.Sent = o.Size
		}
	}
	return err
}

// sendSingly sends the datagrams of a train without joining them.
func (s *Socket) sendSingly(b *sendBuffers, o *Outgoing) error {
	singles := make([]Outgoing, 0, BatchSize)
	var last error
	flush := func() {
		for rest := singles; len(rest) > 0; {
			n, err := b.send(s, rest)
			for i := range rest[:n] {
				o.Sent += rest[i].Size
			}
			if err != nil {
				last = errors.Join(last, s.rescue(b, &rest[n], err))
				o.Sent += rest[n].Sent
				o.SourceRefused = o.SourceRefused || rest[n].SourceRefused
				o.NoRoom = o.NoRoom || rest[n].NoRoom
				n++
			}
			rest = rest[n:]
		}
		singles = singles[:0]
	}
	for _, piece := range o.Pieces {
		for len(piece) > 0 {
			n := min(o.Segment, len(piece))
			singles = append(singles, Outgoing{To: o.To, Local: o.Local, Pieces: [][]byte{piece[:n]}, Segment: n, Size: n, Count: 1, Class: o.Class})
			piece = piece[n:]
			if len(singles) == BatchSize {
				flush()
			}
		}
	}
	flush()
	return last
}

// recvmmsg and sendmmsg are the system calls. They are raw, as the system calls of the TUN device
// are: none of them waits, and yet some take so long, local delivery included, that Go would take
// the processor away and wake another thread for it. Measured with pings: 0.7 needless wake-ups
// for each ping.
//
// Benchmark: a build with unix.Syscall and unix.Syscall6 in place of the raw calls here, in
// tun's readNow and in tun's writev, beside a build of the tree:
//
//	go run ./test/bench/dataplane -loden raw=PROGRAM,plain=PROGRAM -raw=false -tests tcp1,pong
//
// All four may become plain calls together when the two builds differ by no more than two builds of
// the same tree do, on two processors and with the Go version of go.mod.
func recvmmsg(fd uintptr, headers []mmsghdr) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&headers[0])), uintptr(len(headers)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func sendmmsg(fd uintptr, headers []mmsghdr) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&headers[0])), uintptr(len(headers)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
