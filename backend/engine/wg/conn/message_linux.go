package conn

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSize is room for the ancillary data of a message, in bytes: a segment size, a
// traffic class and a packet info need 24 + 24 + 40.
const controlSize = 128

// receiveBuffers is the memory of a recvmmsg call, prepared once.
type receiveBuffers struct {
	v6      bool
	headers []mmsghdr
	vectors [ReadBatchSize]unix.Iovec
	names   [ReadBatchSize]unix.RawSockaddrInet6 // large enough for both families
	control [ReadBatchSize][controlSize]byte
	n       int
	err     error
	waited  bool // the socket was empty at first
	readFn  func(uintptr) bool
}

func (b *receiveBuffers) init(v6 bool) {
	b.v6 = v6
	b.headers = make([]mmsghdr, ReadBatchSize)
	b.readFn = b.readNow
}

// begin points the headers at the buffers of in.
func (b *receiveBuffers) begin(in []Incoming) {
	b.waited = false
	b.headers = b.headers[:min(len(in), ReadBatchSize)]
	for i := range b.headers {
		h := &b.headers[i]
		b.vectors[i].Base = &in[i].Buf[0]
		b.vectors[i].SetLen(len(in[i].Buf))
		h.Iov, h.Iovlen = &b.vectors[i], 1
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), unix.SizeofSockaddrInet6
		h.Control = &b.control[i][0]
		h.SetControllen(controlSize)
		h.Flags, h.len = 0, 0
	}
}

func (b *receiveBuffers) readNow(fd uintptr) bool {
	for {
		b.n, b.err = recvmmsg(fd, b.headers)
		switch {
		case errors.Is(b.err, unix.EINTR):
		case errors.Is(b.err, unix.EAGAIN):
			b.err, b.waited = nil, true
			return false
		default:
			return true
		}
	}
}

// finish fills in m from header i and its ancillary data.
func (b *receiveBuffers) finish(i int, m *Incoming) {
	h := &b.headers[i]
	m.Size, m.ECN, m.Local, m.Device = int(h.len), 0, netip.Addr{}, 0
	m.Segment = m.Size
	if h.Flags&unix.MSG_TRUNC != 0 {
		m.Size = 0 // larger than any datagram of WireGuard
	}
	m.From = sockaddr(&b.names[i])
	rest := b.control[i][:h.Controllen]
	for len(rest) >= unix.SizeofCmsghdr {
		c := (*unix.Cmsghdr)(unsafe.Pointer(&rest[0]))
		size := int(c.Len)
		if size < unix.SizeofCmsghdr || size > len(rest) {
			return
		}
		m.ancillary(c.Level, c.Type, rest[unix.CmsgLen(0):size])
		rest = rest[min(len(rest), unix.CmsgSpace(size-unix.CmsgLen(0))):]
	}
}

// ancillary reads a control message.
func (m *Incoming) ancillary(level, kind int32, data []byte) {
	switch {
	case level == unix.IPPROTO_UDP && kind == unix.UDP_GRO && len(data) >= 4:
		m.Segment = int(binary.NativeEndian.Uint32(data))
	case level == unix.IPPROTO_IP && kind == unix.IP_TOS && len(data) >= 1:
		m.ECN = data[0] & 3
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_TCLASS && len(data) >= 4:
		m.ECN = uint8(binary.NativeEndian.Uint32(data)) & 3
	case level == unix.IPPROTO_IP && kind == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		m.Local, m.Device = netip.AddrFrom4([4]byte(data[8:12])), binary.NativeEndian.Uint32(data)
	case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		m.Local, m.Device = netip.AddrFrom16([16]byte(data[:16])), binary.NativeEndian.Uint32(data[16:])
	}
}

// sockaddr returns the address in a struct sockaddr_in or sockaddr_in6.
func sockaddr(name *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&name.Port))[:])
	if name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
	}
	a := netip.AddrFrom16(name.Addr)
	if name.Scope_id != 0 && a.IsLinkLocalUnicast() {
		a = a.WithZone(strconv.FormatUint(uint64(name.Scope_id), 10))
	}
	return netip.AddrPortFrom(a, port)
}

// sendBuffers is the memory of a sendmmsg call.
type sendBuffers struct {
	v6      bool
	headers [BatchSize]mmsghdr
	names   [BatchSize]unix.RawSockaddrInet6
	control [BatchSize][controlSize]byte
	vectors []unix.Iovec
	todo    []mmsghdr // not sent yet
	n       int
	err     error
	sendFn  func(uintptr)
}

func newSendBuffers(v6 bool) *sendBuffers {
	b := &sendBuffers{v6: v6}
	b.sendFn = b.sendNow
	return b
}

// send sends at most BatchSize trains and returns how many went out; the error is the next
// train's. It never waits: the error is EAGAIN when the socket's buffer has no room.
func (b *sendBuffers) send(s *Socket, out []Outgoing) (int, error) {
	total := 0
	for i := range out {
		total += len(out[i].Pieces)
	}
	if cap(b.vectors) < total { // before the first pointer into it
		b.vectors = make([]unix.Iovec, 0, 2*total)
	}
	b.vectors = b.vectors[:0]
	for i := range out {
		b.prepare(i, &out[i])
	}
	sent := 0
	for sent < len(out) {
		b.todo = b.headers[sent:len(out)]
		if err := s.raw.Control(b.sendFn); err != nil {
			return sent, err
		}
		if b.err != nil {
			return sent, b.err
		}
		sent += b.n
	}
	return sent, nil
}

// sendNow sends the trains of todo, or a part of them. It runs in Control, into which Go lets any
// number of goroutines at once.
func (b *sendBuffers) sendNow(fd uintptr) {
	for {
		if b.n, b.err = sendmmsg(fd, b.todo); !errors.Is(b.err, unix.EINTR) {
			return
		}
	}
}

// prepare writes header i.
func (b *sendBuffers) prepare(i int, m *Outgoing) {
	h := &b.headers[i]
	from := len(b.vectors)
	for _, p := range m.Pieces {
		v := unix.Iovec{Base: &p[0]}
		v.SetLen(len(p))
		b.vectors = append(b.vectors, v)
	}
	h.Iov = &b.vectors[from]
	h.SetIovlen(len(m.Pieces))
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), putSockaddr(&b.names[i], m.To)
	control := b.ancillary(b.control[i][:0], m)
	h.Control = nil
	if len(control) > 0 {
		h.Control = &control[0]
	}
	h.SetControllen(len(control))
	h.Flags, h.len = 0, 0
}

// ancillary appends the control messages of m.
func (b *sendBuffers) ancillary(c []byte, m *Outgoing) []byte {
	level, class := int32(unix.IPPROTO_IP), int32(unix.IP_TOS)
	if b.v6 {
		level, class = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	}
	if m.Count > 1 {
		var data []byte
		c, data = appendControl(c, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(data, uint16(m.Segment))
	}
	if m.Class != 0 {
		var data []byte
		c, data = appendControl(c, level, class, 4)
		binary.NativeEndian.PutUint32(data, uint32(m.Class))
	}
	if a := m.Local; a.IsValid() {
		var data []byte
		if b.v6 {
			c, data = appendControl(c, level, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
			from := a.As16()
			copy(data, from[:])
		} else {
			c, data = appendControl(c, level, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
			from := a.As4()
			copy(data[4:], from[:]) // ipi_spec_dst: ip(7)
		}
	}
	return c
}

// appendControl appends a control message of size bytes and returns its data, zeroed.
func appendControl(c []byte, level, kind int32, size int) (all, data []byte) {
	from := len(c)
	c = c[:from+unix.CmsgSpace(size)]
	clear(c[from:])
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c[from]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	return c, c[from+unix.CmsgLen(0):][:size]
}

// putSockaddr writes an address as the kernel wants it and returns its size in bytes.
func putSockaddr(name *unix.RawSockaddrInet6, to netip.AddrPort) uint32 {
	*name = unix.RawSockaddrInet6{}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&name.Port))[:], to.Port())
	if to.Addr().Is4() {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		v4.Family, v4.Addr = unix.AF_INET, to.Addr().As4()
		return unix.SizeofSockaddrInet4
	}
	name.Family, name.Addr = unix.AF_INET6, to.Addr().As16()
	if scope, err := strconv.ParseUint(to.Addr().Zone(), 10, 32); err == nil {
		name.Scope_id = uint32(scope)
	}
	return unix.SizeofSockaddrInet6
}
