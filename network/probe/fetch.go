package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
)

const (
	fetchLimit  = 10 * time.Second       // for an answer, unless the context ends earlier
	fetchWindow = 16                     // pieces that are under way at a time
	fetchAgain  = 250 * time.Millisecond // after which a request is repeated
	fetchLater  = 30 * time.Millisecond  // after which an answer that is being made is asked for again
	fetchPacket = 1200                   // bytes of the IP packet of a request, unless the tunnel's MTU is smaller
)

// ErrSilent says that a peer did not answer a question in time.
var ErrSilent = errors.New("no answer in time")

// download is an answer that arrives.
type download struct {
	n        *neighbour
	question string
	name     uint64
	size     int // bytes of a piece
	arrived  chan portion
	ids      []uint64 // of its requests
}

// Fetch asks a peer a question in words and returns the answer of its Options.Answer. It
// blocks until the answer is complete or ctx ends, for 10 seconds at most. Errors: ErrSilent.
func (s *Service) Fetch(ctx context.Context, peer wgtypes.Key, question string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	d, f, err := s.begin(peer, question)
	if err != nil {
		return nil, err
	}
	defer s.end(d)
	data, err := s.collect(ctx, d, f)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", d.n.Node, err)
	}
	return unpack(data)
}

// begin makes a download by the better path to a peer.
func (s *Service) begin(peer wgtypes.Key, question string) (*download, opt.Family, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.peers[peer]
	if !ok {
		return nil, 0, errNoPeer
	}
	best, answered, found := opt.V4, time.Time{}, false
	for f, p := range n.paths.All() {
		if s.conns.Of(f).Present() && (!found || p.answered.After(answered)) {
			best, answered, found = f, p.answered, true
		}
	}
	if !found {
		return nil, 0, fmt.Errorf("ask %s: no socket: %s", n.Node, s.fault)
	}
	packet := fetchPacket
	if s.plan.MTU != 0 {
		packet = min(packet, s.plan.MTU)
	}
	size := packet - headers(best) - sealSize - headSize - portionSize
	if requestSize+len(question) > size+portionSize || len(question) > questionMost {
		return nil, 0, fmt.Errorf("ask %s: the question is too long: %d bytes", n.Node, len(question))
	}
	return &download{n: n, question: question, name: rand.Uint64(), size: size, arrived: make(chan portion, 4*fetchWindow)}, best, nil
}

// end forgets a download.
func (s *Service) end(d *download) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range d.ids {
		delete(s.wanted, id)
	}
}

// collect asks for the pieces of an answer until all are there.
func (s *Service) collect(ctx context.Context, d *download, f opt.Family) ([]byte, error) {
	var have map[uint32][]byte
	asked := map[uint32]time.Time{}
	total, known := 0, false
	for {
		if s.request(d, f, due(have, asked, d.pieces(total, known), time.Now())) != nil {
			return nil, errNoPeer
		}
		timer := time.NewTimer(fetchLater)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w: %w", ErrSilent, ctx.Err())
		case <-timer.C:
			continue
		case p := <-d.arrived:
			timer.Stop()
			switch {
			case p.total == answerLater:
				asked[p.number] = time.Now().Add(fetchLater - fetchAgain)
				continue
			case p.total == answerRefused:
				return nil, errors.New(string(p.bytes))
			case int64(p.total) > answerMost || known && int(p.total) != total:
				return nil, errMalformed
			case !known:
				total, known, have = int(p.total), true, map[uint32][]byte{}
			}
			if int(p.number) < d.pieces(total, true) {
				have[p.number] = p.bytes
			}
		}
		if data, ok := d.join(have, total); ok {
			return data, nil
		}
	}
}

// pieces returns the number of pieces of an answer; 1 while its size is not known.
func (d *download) pieces(total int, known bool) int {
	if !known {
		return 1
	}
	return max(1, (total+d.size-1)/d.size)
}

// join returns the answer, once all its pieces are there.
func (d *download) join(have map[uint32][]byte, total int) ([]byte, bool) {
	n := d.pieces(total, true)
	if len(have) < n {
		return nil, false
	}
	out := make([]byte, 0, total)
	for i := range n {
		out = append(out, have[uint32(i)]...)
	}
	return out, len(out) == total
}

// due returns the numbers of the pieces to be asked for now, and notes them as asked.
func due(have map[uint32][]byte, asked map[uint32]time.Time, pieces int, now time.Time) []uint32 {
	var out []uint32
	waiting := 0
	for i := range uint32(pieces) {
		if _, ok := have[i]; ok {
			continue
		}
		if waiting++; waiting > fetchWindow {
			break
		}
		if at, ok := asked[i]; !ok || now.Sub(at) >= fetchAgain {
			asked[i] = now
			out = append(out, i)
		}
	}
	return out
}

// request sends requests for pieces. Each holds as many bytes as the piece will have.
func (s *Service) request(d *download, f opt.Family, numbers []uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := d.n.paths.Of(f).Get()
	c, open := s.conns.Of(f).Get()
	to, addressed := d.n.Addresses.Of(f).Get()
	keys, err := d.n.keys()
	if !ok || !open || !addressed || err != nil {
		return errNoPeer
	}
	for _, number := range numbers {
		r := request{answer: d.name, number: number, size: d.size, question: d.question}
		content := p.view(time.Now(), message{kind: fetch, body: r.encode()}).encode(headSize + portionSize + d.size)
		datagram, id := keys.seal(content)
		d.ids = append(d.ids, id)
		s.wanted[id] = d
		_ = c.Send(to, datagram) // a request that is lost is repeated
	}
	return nil
}

// deliver takes a piece of an answer to the download that asked for it.
func (s *Service) deliver(in incoming) {
	d, ok := s.wanted[in.m.re]
	if !ok || d.n != in.n {
		return
	}
	p, err := decodePortion(in.m.body)
	if err != nil {
		return
	}
	select {
	case d.arrived <- p:
		delete(s.wanted, in.m.re)
	default: // the download is slow, and asks again
	}
}
