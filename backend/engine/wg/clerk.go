package wg

import (
	"net/netip"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// letter is something for the clerk: a handshake message, or a peer whose staged packets
// may go now.
type letter struct {
	raw   [noise.InitiationSize]byte
	size  uint8 // 0: no message
	from  netip.AddrPort
	local source
	peer  *peer
}

func (l *letter) msg() []byte { return l.raw[:l.size] }

// post hands a letter to the clerk, or drops it when too many wait.
func (d *Device) post(l letter) {
	select {
	case d.letters <- l:
	default:
		d.counters.rejected.Add(1)
	}
}

// clerk reads handshake messages one after the other, so that their cost never stops the
// data path, and sends staged packets once there is a session.
func (d *Device) clerk() {
	s := newSender(d)
	for {
		select {
		case <-d.closed:
			return
		case l := <-d.letters:
			if len(d.letters) >= loadedAt {
				d.loaded.Store(int64(d.now()))
			}
			d.handle(l, s)
		}
	}
}

// handle acts on one letter.
func (d *Device) handle(l letter, s *sender) {
	if p := d.read(l); p != nil {
		s.unstage(p)
	}
}

// read checks a handshake message's codes and acts on it. It returns a peer that has a
// session now, if there is one.
func (d *Device) read(l letter) *peer {
	self := d.self.Load()
	if l.size == 0 || self == nil {
		return l.peer
	}
	msg, now := l.msg(), d.now()
	if msg[0] == noise.TypeCookie {
		d.readCookie(l, now)
		return nil
	}
	if !self.guard.MAC1(msg) {
		d.counters.rejected.Add(1)
		return nil
	}
	if d.underLoad(now) && !d.vouched(self, l, now) {
		return nil
	}
	if msg[0] == noise.TypeInitiation {
		d.readInitiation(l, now)
		return nil
	}
	return d.readResponse(l, now)
}

// underLoad reports whether handshakes must be paid for with a cookie: section 5.3.
func (d *Device) underLoad(now moment) bool {
	at := moment(d.loaded.Load())
	return at != 0 && now-at < loadedFor
}

// vouched reports whether the sender of a message has proved its address and does not send
// too often. Without proof it gets a cookie.
func (d *Device) vouched(self *self, l letter, now moment) bool {
	if !self.guard.MAC2(l.msg(), l.from, now) {
		reply := self.guard.Reply(l.msg(), l.from, now)
		d.counters.cookies.Add(1)
		d.sendMessage(&endpoint{remote: l.from, local: l.local}, reply)
		return false
	}
	return d.limits.Allow(l.from.Addr())
}
