package wg

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"

	"github.com/loden-net/loden/backend/engine/wg/cipher"
	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/backend/engine/wg/offload"
	"github.com/loden-net/loden/backend/engine/wg/peer"
)

const (
	maxPacket  = 65535     // bytes
	maxPadding = 15        // bytes
	arenaSize  = 128 << 10 // bytes of messages: a super-packet and more
	flushAt    = 40 << 10  // bytes at which a batch is sent: a ping waits for a single batch at most
	lookBack   = 16        // trains that are searched for a train of the same peer
)

// sender encrypts packets and sends them, batch by batch. It belongs to a single goroutine. It does
// not allocate per packet.
type sender struct {
	device *Device
	split  offload.Split
	arena  []byte // the messages of the batch, back to back
	batch  batch  // the messages that are not encrypted yet
	own    ownMessages
	out    []conn.Outgoing
	owners []*peer.Peer // of each train of out
	before func()       // waits until every earlier batch has been sent; nil: there is no earlier batch
}

func newSender(d *Device) *sender {
	return &sender{
		device: d,
		own:    ownMessages{device: d},
		arena:  make([]byte, 0, arenaSize),
		out:    make([]conn.Outgoing, 0, conn.BatchSize),
		owners: make([]*peer.Peer, 0, conn.BatchSize),
	}
}

// sendLoop carries packets from a queue of the TUN to the peers until the TUN is closed.
func (d *Device) sendLoop(from queue) error {
	var pool *workerPool[*sender]
	pool = newWorkerPool(d.workers, func() *sender {
		s := newSender(d)
		s.before = pool.wait
		return s
	}, (*sender).encrypt, (*sender).finish)
	defer pool.close()
	s := pool.fresh()
	buf := make([]byte, offload.HeaderSize+maxPacket)
	for {
		n, err := from.Read(buf)
		for full := 0; err == nil && n > 0; {
			s.packet(buf[:n])
			if len(s.arena) >= flushAt {
				// The first such batch is a burst. The second means that packets come faster
				// than this goroutine sends them.
				if full++; full == 1 {
					s.flush()
				} else {
					s = pool.submit(s)
					d.counters.submitted.Add(1)
				}
			}
			n, err = from.TryRead(buf)
		}
		s.flush()
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// packet sends a packet as the TUN gave it: virtio header first. The packet is overwritten.
func (s *sender) packet(b []byte) {
	d := s.device
	if len(b) < offload.HeaderSize {
		d.counters.malformed.Add(1)
		return
	}
	pkt := b[offload.HeaderSize:]
	m := d.routes.lookup(destination(pkt))
	if d.refuses(m, b, &s.split) {
		return
	}
	p, now := &m.Peer, d.now()
	if s.loops(m, pkt) {
		return
	}
	current := p.Current()
	if current == nil || !current.Usable(now) {
		d.carryOut(p, p.Stage(b, now))
		return
	}
	if p.HasStaged() {
		s.flushStaged(p)
	}
	s.seal(p, current, b, now)
}

// loops drops a packet to a peer whose endpoint is routed into this interface, and a packet that is a
// datagram of this device itself.
func (s *sender) loops(m *member, pkt []byte) bool {
	d := s.device
	if to := m.Endpoint(); to != nil && to.Loop {
		d.counters.looped.Add(1)
		return true
	}
	p := s.own.of(pkt, m)
	if p == nil {
		return false
	}
	d.counters.looped.Add(1)
	p.SuspectLoop()
	d.checkSoon()
	return true
}

// flushStaged sends the packets that waited for a keypair.
func (s *sender) flushStaged(p *peer.Peer) {
	p.FlushStaged(s.device.now, func(k *peer.Keypair, packets [][]byte) {
		for _, b := range packets {
			s.seal(p, k, b, s.device.now())
		}
		s.flush()
	})
}

// seal cuts a packet and appends the pieces to the batch, to be encrypted with it.
func (s *sender) seal(p *peer.Peer, with *peer.Keypair, b []byte, now moment) {
	pkt := b[offload.HeaderSize:]
	if err := s.split.Reset(offload.Decode(b), pkt); err != nil {
		s.device.counters.malformed.Add(1)
		return // the virtio header contradicts the packet
	}
	if s.device.exceeds(&s.split, pkt) {
		return
	}
	counter, ok := with.Reserve(s.split.Count())
	if !ok {
		s.device.counters.exhausted.Add(uint64(s.split.Count()))
		p.RequestHandshake(now)
		return
	}
	ecn := congestion(pkt)
	mtu := int(s.device.linkMTU.Load())
	for seg, more := s.split.Next(); more; seg, more = s.split.Next() {
		if len(s.arena)+len(seg)+maxPadding+cipher.Overhead > cap(s.arena) {
			s.flush()
		}
		s.append(p, s.frame(with, counter, seg, mtu), ecn)
		counter++
	}
}

// frame puts a packet into the arena as a message that is still to be encrypted.
func (s *sender) frame(with *peer.Keypair, counter uint64, seg []byte, mtu int) []byte {
	size := (len(seg) + maxPadding) &^ maxPadding // section 5.4.6
	if size > mtu {
		size = max(mtu, len(seg)) // never beyond the MTU: the outer packet would not fit
	}
	from := len(s.arena)
	s.arena = with.Frame(s.arena, counter, size)
	msg := s.arena[from:]
	body := cipher.Body(msg)
	clear(body[copy(body, seg):])
	s.batch.add(message{raw: msg, keypair: with})
	return msg
}

// append adds a message to the batch: to the train of its peer where it fits.
func (s *sender) append(p *peer.Peer, msg []byte, ecn uint8) {
	for i := len(s.out) - 1; i >= 0 && i >= len(s.out)-lookBack; i-- {
		if s.owners[i] == p {
			if s.out[i].Append(msg, ecn) {
				return
			}
			break
		}
	}
	to := p.Endpoint()
	if to == nil {
		s.device.counters.noEndpoint.Add(1)
		return
	}
	if len(s.out) == conn.BatchSize {
		s.hurry()
	}
	s.out = s.out[:len(s.out)+1]
	s.out[len(s.out)-1].Start(to.Remote, to.Source, msg, ecn)
	s.owners = append(s.owners, p)
}

// flush sends the batch after all earlier batches, and empties it.
func (s *sender) flush() {
	s.hurry()
	s.finish()
}

// hurry sends the trains of the batch so far, after all earlier batches.
func (s *sender) hurry() {
	if s.before != nil {
		s.before()
	}
	s.encrypt()
	s.send()
}

// encrypt encrypts the messages that are not encrypted yet.
func (s *sender) encrypt() {
	s.batch.encrypt()
	s.batch.clear()
}

// finish sends an encrypted batch and empties it.
func (s *sender) finish() {
	s.send()
	s.device.noteLoad(len(s.arena))
	s.arena = s.arena[:0]
}

// send sends the trains of the batch. Their messages stay in the arena.
func (s *sender) send() {
	if len(s.out) == 0 {
		return
	}
	s.device.send(s.out)
	now := s.device.now()
	for i := range s.out {
		t, p := &s.out[i], s.owners[i]
		if t.SourceRefused {
			p.ClearSource()
		}
		if t.TrainRefused {
			s.device.noteNarrowPath(t)
		}
		if t.Sent < t.Size && !t.NoRoom { // otherwise counted already
			s.device.counters.unsent.Add(uint64((t.Size - t.Sent + t.Segment - 1) / t.Segment))
		}
		if t.Sent > 0 { // data that the kernel refused was not sent: no answer to it can be awaited
			p.NoteSent(now, t.Sent)
		}
	}
	s.out, s.owners = s.out[:0], s.owners[:0]
}

// destination returns the destination address of an IP packet, or the zero Addr.
func destination(pkt []byte) netip.Addr {
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(pkt[16:20]))
	case len(pkt) >= 40 && pkt[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(pkt[24:40]))
	}
	return netip.Addr{}
}

// congestion returns the two ECN bits of an IP packet: RFC 3168, RFC 6040.
func congestion(pkt []byte) uint8 {
	if pkt[0]>>4 == 4 {
		return pkt[1] & 3
	}
	return uint8(binary.BigEndian.Uint16(pkt)>>4) & 3
}
