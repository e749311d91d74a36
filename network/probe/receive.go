package probe

import (
	"context"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// receive reads a socket until it is closed, and then returns nil. ctx bounds the answers to
// questions in words.
func (s *Service) receive(ctx context.Context, f opt.Family, c conn) error {
	for {
		a, err := c.Receive()
		if err != nil { // the socket is closed: its owner opens another, or the node ends
			return nil
		}
		if a.refused {
			s.refused(f, a)
			continue
		}
		s.take(ctx, f, c, a)
	}
}

// refused notes that the host of a peer refused a question. The quoted id proves that the
// question arrived there.
func (s *Service) refused(f opt.Family, a arrival) {
	id, ok := idOf(a.data)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, p, ok := s.sender(f, a); ok && p.refuse(id) {
		s.judge(n, f, time.Now())
	}
}

// sender finds the peer, and its path, by the address of an arrival. WireGuard has proven that the
// datagram is from the peer's node or from its pods.
func (s *Service) sender(f opt.Family, a arrival) (*neighbour, *path, bool) {
	n, ok := s.at[a.from]
	if !ok {
		s.counts.Unknown++
		return nil, nil, false
	}
	p, ok := n.paths.Of(f).Get()
	return n, p, ok
}

// take takes a datagram. A datagram without the seal of its sender leaves no trace but a
// counter.
func (s *Service) take(ctx context.Context, f opt.Family, c conn, a arrival) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, p, ok := s.sender(f, a)
	if !ok {
		return
	}
	keys, err := n.keys()
	if err != nil {
		return
	}
	content, id, err := keys.open(a.data)
	if err != nil {
		s.counts.Forged++
		return
	}
	m, err := decode(content)
	if err != nil { // of a newer version: no answer tells it that this version does not know
		return
	}
	s.counts.Received++
	n.spoke = true
	now := time.Now()
	in := incoming{n: n, p: p, f: f, c: c, m: m, id: id, size: len(a.data), now: now}
	switch m.kind {
	case ask:
		p.hear(now, m)
		s.reply(in)
	case reply:
		if p.answer(now, m) {
			s.judge(n, f, now)
		}
	case fetch:
		p.hear(now, m)
		s.serve(ctx, in)
	case piece:
		p.hear(now, m)
		s.deliver(in)
	}
	if p.calls > 0 {
		s.wake.Set()
	}
}

// incoming is an authentic message.
type incoming struct {
	n    *neighbour
	p    *path
	f    opt.Family
	c    conn
	m    message
	id   uint64
	size int // bytes of the datagram
	now  time.Time
}

// reply answers an ask with a datagram of the same size, within the limits.
func (s *Service) reply(in incoming) {
	if !in.n.repliesTo.take(in.now) || !s.replies.take(in.now) {
		s.counts.Limited++
		return
	}
	size := in.size
	if in.m.short {
		size = 0
	}
	s.send(in, message{kind: reply, re: in.id, arrived: in.size}, size)
}

// send seals and sends a message back to the sender of in. The datagram is at most size long,
// and never longer than the datagram of in.
func (s *Service) send(in incoming, m message, size int) {
	keys, err := in.n.keys()
	if err != nil {
		return
	}
	content := in.p.view(in.now, m).encode(size - sealSize)
	if len(content)+sealSize > in.size {
		return // never more than the question
	}
	datagram, _ := keys.seal(content)
	to, _ := in.n.Addresses.Of(in.f).Get()
	if in.c.Send(to, datagram) == nil { // an error is a lost answer for the peer, which asks again
		s.counts.Replied++
	}
}
