package wg

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"

	"github.com/loden-net/loden/backend/engine/wg/cipher"
	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/backend/engine/wg/offload"
)

const (
	maxPacket  = 65535     // bytes
	maxPadding = 15        // bytes
	arenaSize  = 128 << 10 // of messages; one super-packet and more
	flushAt    = 40 << 10  // a batch is sent at that size: a ping waits for one at most
	lookBack   = 16        // trains that are searched for one that may grow
)

// sender encrypts packets and sends them, one batch after the other. It belongs to one
// goroutine. It allocates nothing per packet.
type sender struct {
	device *Device
	split  offload.Split
	arena  []byte // messages, one behind the other
	batch  batch  // the same, not encrypted yet
	out    []conn.Outgoing
	owners []*peer // of each train of out
	before func()  // waits until every earlier batch has been sent; nil: there are none
}

func newSender(d *Device) *sender {
	return &sender{
		device: d,
		arena:  make([]byte, 0, arenaSize),
		out:    make([]conn.Outgoing, 0, conn.BatchSize),
		owners: make([]*peer, 0, conn.BatchSize),
	}
}

// sendLoop carries packets from one queue of the TUN to the peers until the TUN is closed.
func (d *Device) sendLoop(from queue) error {
	var c *crew[*sender]
	c = newCrew(d.hands, func() *sender {
		s := newSender(d)
		s.before = c.settle
		return s
	}, (*sender).encrypt, (*sender).finish)
	defer c.close()
	s := c.fresh()
	buf := make([]byte, offload.HeaderSize+maxPacket)
	for {
		n, err := from.Read(buf)
		for full := 0; err == nil && n > 0; {
			s.packet(buf[:n])
			if len(s.arena) >= flushAt {
				// One such batch is a burst. The next one means that the other end of the
				// queue is faster than this one.
				if full++; full == 1 {
					s.flush()
				} else {
					s = c.pass(s)
					d.counters.handed.Add(1)
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

// packet sends one packet as the TUN gave it: virtio header first. It is overwritten.
func (s *sender) packet(b []byte) {
	d := s.device
	if len(b) < offload.HeaderSize {
		return
	}
	pkt := b[offload.HeaderSize:]
	p := d.routes.lookup(destination(pkt))
	if d.refuses(p, b, &s.split) {
		return
	}
	now := d.now()
	current := p.current.Load()
	if current == nil || !current.usable(now) {
		p.keep(b)
		return
	}
	if p.staged.Load() {
		s.unstage(p)
	}
	s.seal(p, current, b, now)
}

// unstage sends what waited for a session. Another sender that comes meanwhile waits, so that
// what it has does not overtake it.
func (s *sender) unstage(p *peer) {
	p.unstaging.Lock()
	defer p.unstaging.Unlock()
	now := s.device.now()
	current := p.current.Load()
	if current == nil || !current.usable(now) {
		return
	}
	for _, b := range p.kept() {
		s.seal(p, current, b, now)
	}
	s.flush()
	p.unstaged()
}

// seal cuts a packet and appends the pieces to the batch, to be encrypted with it.
func (s *sender) seal(p *peer, with *session, b []byte, now moment) {
	pkt := b[offload.HeaderSize:]
	if err := s.split.Reset(offload.Decode(b), pkt); err != nil {
		return // the kernel contradicts itself: nothing can be done with it
	}
	if s.device.exceeds(&s.split, pkt) {
		return
	}
	counter, ok := with.reserve(s.split.Count())
	if !ok {
		p.ask(now)
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
	if with.aged(now) {
		p.ask(now)
	}
}

// frame puts one packet into the arena as a message that is still to be encrypted.
func (s *sender) frame(with *session, counter uint64, seg []byte, mtu int) []byte {
	size := (len(seg) + maxPadding) &^ maxPadding // section 5.4.6
	if size > mtu {
		size = max(mtu, len(seg)) // never beyond the MTU: the outer packet would not fit
	}
	from := len(s.arena)
	s.arena = with.frame(s.arena, counter, size)
	msg := s.arena[from:]
	body := cipher.Body(msg)
	clear(body[copy(body, seg):])
	s.batch.add(message{raw: msg, session: with})
	return msg
}

// append adds one message to the batch: to the train of its peer where it fits.
func (s *sender) append(p *peer, msg []byte, ecn uint8) {
	for i := len(s.out) - 1; i >= 0 && i >= len(s.out)-lookBack; i-- {
		if s.owners[i] == p {
			if s.out[i].Append(msg, ecn) {
				return
			}
			break
		}
	}
	to := p.to.Load()
	if to == nil {
		return
	}
	if len(s.out) == conn.BatchSize {
		s.hurry()
	}
	s.out = s.out[:len(s.out)+1]
	s.out[len(s.out)-1].Start(to.remote, to.local, msg, ecn)
	s.owners = append(s.owners, p)
}

// flush sends the batch after all earlier ones, and empties it.
func (s *sender) flush() {
	s.hurry()
	s.finish()
}

// hurry sends what there is of the batch after all earlier ones.
func (s *sender) hurry() {
	if s.before != nil {
		s.before()
	}
	s.encrypt()
	s.send()
}

// encrypt encrypts what is not encrypted yet.
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

// send sends the trains there are. What they point to stays in the arena.
func (s *sender) send() {
	if len(s.out) == 0 {
		return
	}
	s.device.send(s.out)
	now := s.device.now()
	for i := range s.out {
		t, p := &s.out[i], s.owners[i]
		if t.SourceRefused {
			p.unstick()
		}
		p.sentBytes.Add(uint64(t.Size))
		p.noteSent(now, true)
	}
	s.out, s.owners = s.out[:0], s.owners[:0]
}

// destination returns where an IP packet goes, or the zero Addr.
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
