package probe

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// The bounds of answers to questions in words.
const (
	answersOfPeer = 4                // answers that are kept for a peer
	answersOfAll  = 64               // and for all
	answerKept    = 10 * time.Second // since its last piece was sent
	answerLimit   = 3 * time.Second  // for making an answer
	answerMost    = 1 << 20          // bytes of a compressed answer
	unpackedMost  = 16 << 20         // bytes of an answer that Fetch returns
	questionMost  = 512              // bytes of a question
)

// answerKey names an answer: its asker, and the asker's name for it.
type answerKey struct {
	n    *neighbour
	name uint64
}

// answer is an answer that a peer fetches piece by piece. All pieces are of the same moment.
type answer struct {
	used  time.Time
	ready bool
	data  []byte // compressed
	err   error  // instead of data
}

// answers are the answers that are being fetched.
type answers map[answerKey]*answer

// sweep forgets the answers that were not asked for in time.
func (a answers) sweep(now time.Time) {
	for k, v := range a {
		if now.Sub(v.used) > answerKept {
			delete(a, k)
		}
	}
}

// room reports whether another answer for a peer may be made.
func (a answers) room(n *neighbour) bool {
	own := 0
	for k := range a {
		if k.n == n {
			own++
		}
	}
	return own < answersOfPeer && len(a) < answersOfAll
}

// serve sends a piece of an answer, and makes the answer at the first request.
func (s *Service) serve(ctx context.Context, in incoming) {
	r, err := decodeRequest(in.m.body)
	if err != nil || len(r.question) > questionMost {
		return
	}
	if !in.n.piecesTo.take(in.now) || !s.pieces.take(in.now) {
		s.counts.Limited++
		return
	}
	key := answerKey{in.n, r.answer}
	a, known := s.store[key]
	if !known {
		s.store.sweep(in.now)
		if s.o.Answer == nil || !s.store.room(in.n) {
			s.counts.Limited++
			return
		}
		a = &answer{}
		s.store[key] = a
		s.making.Go(func() { s.make(ctx, a, in.n, r.question) }) // ends within answerLimit
	}
	a.used = in.now
	s.send(in, message{kind: piece, re: in.id, body: a.portion(r).encode()}, 0)
}

// make makes an answer.
func (s *Service) make(ctx context.Context, a *answer, n *neighbour, question string) {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	data, err := s.o.Answer(ctx, n.Key, question)
	if err == nil {
		data, err = pack(data)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a.ready, a.data, a.err = true, data, err
}

// portion returns the piece of the answer that a request asks for.
func (a *answer) portion(r request) portion {
	switch at := int(r.number) * r.size; {
	case !a.ready:
		return portion{total: answerLater, number: r.number}
	case a.err != nil:
		text := a.err.Error()
		return portion{total: answerRefused, number: r.number, bytes: []byte(text[:min(len(text), r.size)])}
	case at >= len(a.data):
		return portion{total: uint32(len(a.data)), number: r.number}
	default:
		return portion{total: uint32(len(a.data)), number: r.number, bytes: a.data[at:min(len(a.data), at+r.size)]}
	}
}

// pack compresses an answer.
func pack(data []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("compress the answer: %w", err)
	}
	_, err = w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("compress the answer: %w", err)
	}
	if out.Len() > answerMost {
		return nil, fmt.Errorf("the answer is longer than %d bytes", answerMost)
	}
	return out.Bytes(), nil
}

// unpack is the inverse of pack.
func unpack(data []byte) ([]byte, error) {
	r := io.LimitReader(flate.NewReader(bytes.NewReader(data)), unpackedMost+1)
	out, err := io.ReadAll(r)
	if err == nil && len(out) > unpackedMost {
		err = fmt.Errorf("it is longer than %d bytes", unpackedMost)
	}
	if err != nil {
		return nil, fmt.Errorf("decompress the answer: %w", err)
	}
	return out, nil
}
