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
	"github.com/loden-net/loden/backend/engine/wg/peer"
)

const (
	bufferSize = 64 << 10 // bytes of a received train

	decryptAt    = 2 * cipher.Lanes      // messages at which a batch is decrypted, while it is in the cache
	receivePause = 10 * time.Millisecond // after an error
)

// receiver decrypts the datagrams of a socket, batch by batch. It belongs to a single goroutine at
// a time. It does not allocate per packet.
type receiver struct {
	device *Device
	in     []conn.Incoming
	n      int // entries of in that hold a datagram
	batch  batch
	merger offload.Merger
	now    moment
	run    run
}

// run is a row of messages of the same keypair: their effect on the peer is noted once.
type run struct {
	keypair *peer.Keypair
	bytes   int
	data    bool       // a message was not a keepalive
	source  netip.Addr // the last inner source address that was checked
}

func newReceiver(d *Device) *receiver {
	r := &receiver{device: d, in: make([]conn.Incoming, conn.ReadBatchSize)}
	for i := range r.in {
		r.in[i].Buf = make([]byte, bufferSize)
	}
	r.merger.Write = func(pieces [][]byte) {
		// After an error the interface did not take the packet, because the interface is down or
		// the packet too large: it is dropped, as a router would.
		if err := d.tunnel.Write(pieces); err != nil {
			d.counters.tunRefused.Add(1)
		}
	}
	return r
}

// receiveLoop carries packets from a socket to the TUN until the socket is closed.
func (d *Device) receiveLoop(from socket) {
	pool := newWorkerPool(d.workers, func() *receiver { return newReceiver(d) }, (*receiver).decrypt, (*receiver).flush)
	defer pool.close()
	r := pool.fresh()
	for full := 0; ; {
		n, err := from.Receive(r.in)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			d.log.Debug().Err(err).Msg("received an error")
			select { // no error is expected; an error that stays must not spin
			case <-d.closed:
				return
			case <-time.After(receivePause):
			}
			continue
		}
		r.n, r.now = n, d.now()
		size := r.size()
		d.noteLoad(size)
		// The first large batch is a burst. The second means that datagrams come faster than this
		// goroutine decrypts them.
		if full++; size < flushAt {
			full = 0
		}
		if full > 1 {
			r = pool.submit(r)
			d.counters.submitted.Add(1)
			continue
		}
		pool.wait()
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

// all decrypts all received messages and passes them on, part by part, so that each part is still
// in the cache.
func (r *receiver) all() {
	for i := range r.in[:r.n] {
		r.train(&r.in[i])
		if len(r.batch.messages) >= decryptAt {
			r.batch.decrypt()
			r.deliver()
		}
	}
	r.batch.decrypt()
	r.flush()
}

// decrypt decrypts all received messages. Passing the packets on is left to flush.
func (r *receiver) decrypt() {
	for i := range r.in[:r.n] {
		r.train(&r.in[i])
	}
	r.batch.decrypt()
}

// flush passes on all packets that were decrypted.
func (r *receiver) flush() {
	r.deliver()
	r.endRun()
	r.merger.Flush()
}

// train reads the messages of a received datagram or train.
func (r *receiver) train(m *conn.Incoming) {
	if m.Size == 0 || m.Segment <= 0 {
		r.device.counters.notWireGuard.Add(1)
		return
	}
	for at := 0; at < m.Size; at += m.Segment {
		r.message(m.Buf[at:min(at+m.Segment, m.Size)], m)
	}
}

// message reads a message from outside.
func (r *receiver) message(msg []byte, m *conn.Incoming) {
	if len(msg) < cipher.Overhead {
		r.device.counters.notWireGuard.Add(1)
		return
	}
	switch kind := binary.LittleEndian.Uint32(msg); kind {
	case noise.TypeTransport:
		r.transport(msg, m)
	case noise.TypeInitiation, noise.TypeResponse, noise.TypeCookie:
		if !noise.Well(msg, kind) {
			r.device.counters.notWireGuard.Add(1)
			return
		}
		i := handshakeItem{size: uint8(len(msg)), from: peer.EndpointFromPacket(m.From, m.Local, m.Device)}
		copy(i.raw[:], msg)
		r.device.enqueue(i)
	default:
		r.device.counters.notWireGuard.Add(1)
	}
}

// transport adds a data message or keepalive to the batch.
func (r *receiver) transport(msg []byte, m *conn.Incoming) {
	d := r.device
	k := r.keypair(binary.LittleEndian.Uint32(msg[4:]))
	if k == nil || !k.MayReceive(r.now) {
		d.counters.undecoded.Add(1)
		return
	}
	r.batch.add(message{raw: msg, keypair: k, in: m})
}

// keypair returns the keypair that a message is for, or nil.
func (r *receiver) keypair(index uint32) *peer.Keypair {
	if n := len(r.batch.messages); n > 0 {
		if k := r.batch.messages[n-1].keypair; k.LocalIndex() == index {
			return k
		}
	}
	return r.device.local.Keypair(index)
}

// deliver passes on the decrypted messages in the order in which they came.
func (r *receiver) deliver() {
	full, short := r.device.joins()
	r.merger.KeepTCP, r.merger.KeepUDP, r.merger.EqualOnly = !full, !full || r.device.keepsUDP, !short
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

// opened handles a decrypted message.
func (r *receiver) opened(m *message) {
	d, k := r.device, m.keypair
	if !k.Accept(binary.LittleEndian.Uint64(m.raw[8:])) {
		d.counters.replayed.Add(1)
		return
	}
	p := k.Peer()
	if p.Current() != k {
		d.carryOut(p, p.Confirm(k, d.time()))
	}
	if p.SetEndpointFromPacket(m.in.From, m.in.Local, m.in.Device) {
		d.checkSoon()
	}
	if k != r.run.keypair {
		r.endRun()
		r.run.keypair = k
	}
	r.run.bytes += len(m.raw)
	if plain := cipher.Body(m.raw); len(plain) > 0 {
		r.run.data = true
		r.inner(p, plain, m.in.ECN)
	}
}

// inner passes a decrypted packet on if the peer may send it.
func (r *receiver) inner(p *peer.Peer, plain []byte, outer uint8) {
	from, size := inspect(plain)
	if size == 0 {
		r.device.counters.misrouted.Add(1)
		return
	}
	if from != r.run.source {
		if m := r.device.routes.lookup(from); m == nil || &m.Peer != p {
			r.device.counters.misrouted.Add(1)
			return
		}
		r.run.source = from
	}
	pkt := plain[:size] // without the padding
	if outer == ce && !mark(pkt) {
		// RFC 6040, section 4.2, would drop the packet, since its sender cannot react to a mark. Kernel
		// WireGuard and wireguard-go deliver it (RFC 3168 decapsulation in the kernel's words): routers
		// that overwrite the whole traffic class would otherwise end a tunnel.
		r.device.counters.congested.Add(1)
	}
	r.merger.Add(pkt)
}

// endRun tells the peer of a row of messages.
func (r *receiver) endRun() {
	k := r.run.keypair
	if k == nil {
		return
	}
	k.Peer().NoteReceived(k, r.now, r.run.bytes, r.run.data)
	r.run = run{}
}

// inspect returns the source address and the length in bytes of an IP packet by its header, or
// length 0 when the packet is malformed.
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
