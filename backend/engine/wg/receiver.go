package wg

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/cipher"
	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/offload"
)

const (
	bufferSize = 64 << 10 // bytes of a received train

	enough       = 2 * cipher.Lanes      // messages that are worth decrypting before more are looked at
	receivePause = 10 * time.Millisecond // after an error
)

// receiver decrypts what one socket brings, one batch after the other. It belongs to one
// goroutine at a time. It allocates nothing per packet.
type receiver struct {
	device *Device
	in     []conn.Incoming
	n      int // of in, as received
	batch  batch
	merger offload.Merger
	now    moment
	run    run
}

// run is a row of messages of one session: what is noted once for all of them.
type run struct {
	session *session
	bytes   int
	data    bool
	source  netip.Addr // the last inner address that was checked
}

func newReceiver(d *Device) *receiver {
	r := &receiver{device: d, in: make([]conn.Incoming, conn.ReadBatchSize)}
	for i := range r.in {
		r.in[i].Buf = make([]byte, bufferSize)
	}
	r.merger.KeepUDP = d.keeps
	r.merger.Write = func(pieces [][]byte) {
		// An error is a packet that the interface does not take, because it is down or too
		// large for it: dropped, as any router would.
		_ = d.tunnel.Write(pieces)
	}
	return r
}

// receiveLoop carries packets from a socket to the TUN until the socket is closed.
func (d *Device) receiveLoop(from socket) {
	c := newCrew(d.hands, func() *receiver { return newReceiver(d) }, (*receiver).decrypt, (*receiver).flush)
	defer c.close()
	r := c.fresh()
	for full := 0; ; {
		n, err := from.Receive(r.in)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			d.log.Debug().Err(err).Msg("received an error")
			select { // none is expected; one that stays must not spin
			case <-d.closed:
				return
			case <-time.After(receivePause):
			}
			continue
		}
		r.n, r.now = n, d.now()
		size := r.size()
		d.noteLoad(size)
		// One large batch is a burst. The next one means that the other end of the queue is
		// faster than this one.
		if full++; size < flushAt {
			full = 0
		}
		if full > 1 {
			r = c.pass(r)
			d.counters.handed.Add(1)
			continue
		}
		c.settle()
		r.all()
	}
}

// size returns the bytes that were received.
func (r *receiver) size() (n int) {
	for i := range r.in[:r.n] {
		n += r.in[i].Size
	}
	return n
}

// all reads everything that was received and passes it on, part by part, so that it is still
// in the cache.
func (r *receiver) all() {
	for i := range r.in[:r.n] {
		r.train(&r.in[i])
		if len(r.batch.messages) >= enough {
			r.batch.decrypt()
			r.deliver()
		}
	}
	r.batch.decrypt()
	r.flush()
}

// decrypt reads and decrypts everything that was received. What comes of it is flush's.
func (r *receiver) decrypt() {
	for i := range r.in[:r.n] {
		r.train(&r.in[i])
	}
	r.batch.decrypt()
}

// flush passes everything on that was decrypted.
func (r *receiver) flush() {
	r.deliver()
	r.endRun()
	r.merger.Flush()
}

// train reads the messages of one received datagram or train.
func (r *receiver) train(m *conn.Incoming) {
	if m.Size == 0 || m.Segment <= 0 {
		return
	}
	for at := 0; at < m.Size; at += m.Segment {
		r.message(m.Buf[at:min(at+m.Segment, m.Size)], m)
	}
}

// message reads one message from outside.
func (r *receiver) message(msg []byte, m *conn.Incoming) {
	if len(msg) < cipher.Overhead {
		return
	}
	switch kind := binary.LittleEndian.Uint32(msg); kind {
	case noise.TypeTransport:
		r.transport(msg, m)
	case noise.TypeInitiation, noise.TypeResponse, noise.TypeCookie:
		if noise.Well(msg, kind) {
			l := letter{size: uint8(len(msg)), from: m.From, local: m.Local}
			copy(l.raw[:], msg)
			r.device.post(l)
		}
	}
}

// transport takes one data message or keepalive, to be decrypted with others.
func (r *receiver) transport(msg []byte, m *conn.Incoming) {
	d := r.device
	s := r.session(binary.LittleEndian.Uint32(msg[4:]))
	if s == nil || s.closed.Load() || r.now-s.created >= rejectAfterTime {
		d.counters.undecoded.Add(1)
		return
	}
	r.batch.add(message{raw: msg, session: s, in: m})
}

// session finds the session a message is for.
func (r *receiver) session(index uint32) *session {
	if n := len(r.batch.messages); n > 0 {
		if s := r.batch.messages[n-1].session; s.local == index {
			return s
		}
	}
	return r.device.indices.lookup(index).session
}

// deliver passes on what was decrypted in the order in which it came.
func (r *receiver) deliver() {
	for i := range r.batch.messages {
		m := &r.batch.messages[i]
		if !m.authentic {
			r.device.counters.undecoded.Add(1)
			continue
		}
		r.opened(m)
	}
	r.batch.clear()
}

// opened handles one decrypted message.
func (r *receiver) opened(m *message) {
	d, s := r.device, m.session
	if !s.fresh(binary.LittleEndian.Uint64(m.raw[8:])) {
		d.counters.replayed.Add(1)
		return
	}
	p := s.peer
	if p.current.Load() != s {
		p.confirm(s)
		if p.staged.Load() {
			d.post(letter{peer: p})
		}
	}
	p.roam(m.in.From, m.in.Local)
	if s != r.run.session {
		r.endRun()
		r.run.session = s
	}
	r.run.bytes += len(m.raw)
	if plain := cipher.Body(m.raw); len(plain) > 0 {
		r.run.data = true
		r.inner(p, plain, m.in.ECN)
	}
}

// inner passes a decrypted packet on if the peer may send it.
func (r *receiver) inner(p *peer, plain []byte, outer uint8) {
	from, size := inspect(plain)
	if size == 0 {
		r.device.counters.misrouted.Add(1)
		return
	}
	if from != r.run.source {
		if r.device.routes.lookup(from) != p {
			r.device.counters.misrouted.Add(1)
			return
		}
		r.run.source = from
	}
	pkt := plain[:size] // without the padding
	if outer == ce && !mark(pkt) {
		return // congestion that the sender has no ears for: RFC 6040, section 4.2
	}
	r.merger.Add(pkt)
}

// endRun notes what a row of messages means for their peer.
func (r *receiver) endRun() {
	s := r.run.session
	if s == nil {
		return
	}
	p := s.peer
	p.gotBytes.Add(uint64(r.run.bytes))
	p.noteReceived(r.now, r.run.data)
	if s.initiator && r.now-s.created >= rekeyOnReceive && !s.renewing.Swap(true) {
		p.ask(r.now)
	}
	r.run = run{}
}

// inspect returns the source address and the length in bytes that an IP packet claims, or
// length 0 when it does not hold together.
func inspect(pkt []byte) (from netip.Addr, size int) {
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		from, size = netip.AddrFrom4([4]byte(pkt[12:16])), int(binary.BigEndian.Uint16(pkt[2:]))
		if size < 20 {
			return netip.Addr{}, 0
		}
	case len(pkt) >= 40 && pkt[0]>>4 == 6:
		from, size = netip.AddrFrom16([16]byte(pkt[8:24])), 40+int(binary.BigEndian.Uint16(pkt[4:]))
	}
	if size > len(pkt) {
		return netip.Addr{}, 0
	}
	return from, size
}
