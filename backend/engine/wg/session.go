package wg

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/loden-net/loden/backend/engine/wg/cipher"
	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// session is a pair of transport keys: what a finished handshake leaves.
type session struct {
	peer      *peer
	initiator bool // this side began; it alone renews by time
	created   moment
	local     uint32 // index in messages to us
	remote    uint32 // index in messages to the peer

	send, receive *cipher.Cipher
	counter       atomic.Uint64 // of messages sent
	renewing      atomic.Bool   // receiving has asked for a successor
	closed        atomic.Bool

	mu     sync.Mutex // guards what follows
	window window

	keys noise.Keys // guarded by peer.mu: what another process needs to go on; see leave
}

// newSession takes the keys and wipes them: its own copy lives until the session is retired.
// What the ciphers hold is left to the collector.
func newSession(p *peer, keys *noise.Keys, local uint32, initiator bool, now moment) *session {
	s := &session{
		peer: p, initiator: initiator, created: now, local: local, remote: keys.Remote,
		send: cipher.New((*[32]byte)(&keys.Send)), receive: cipher.New((*[32]byte)(&keys.Receive)), keys: *keys,
	}
	keys.Wipe()
	return s
}

// usable reports whether s may still encrypt or decrypt: section 6.1.
func (s *session) usable(now moment) bool {
	return !s.closed.Load() && now-s.created < rejectAfterTime && s.counter.Load() < rejectAfterMessages
}

// reserve takes n message counters and returns the first, or false when they are used up. No
// counter is given twice, whoever else reserves.
func (s *session) reserve(n int) (uint64, bool) {
	for {
		from := s.counter.Load()
		if from >= rejectAfterMessages || uint64(n) >= rejectAfterMessages-from {
			s.counter.Store(rejectAfterMessages) // and stay there: a counter never wraps
			return 0, false
		}
		if s.counter.CompareAndSwap(from, from+uint64(n)) {
			return from, true
		}
	}
}

// aged reports whether sending should bring about a new session: section 6.2.
func (s *session) aged(now moment) bool {
	return s.counter.Load() > rekeyAfterMessages || (s.initiator && now-s.created >= rekeyAfterTime)
}

// frame appends to dst a transport message whose body of size bytes is still to be written,
// and to be encrypted by send.Seal: section 5.4.6. dst has the capacity.
func (s *session) frame(dst []byte, counter uint64, size int) []byte {
	from := len(dst)
	dst = dst[:from+size+cipher.Overhead]
	binary.LittleEndian.PutUint32(dst[from:], noise.TypeTransport)
	binary.LittleEndian.PutUint32(dst[from+4:], s.remote)
	binary.LittleEndian.PutUint64(dst[from+8:], counter)
	return dst
}

// seal returns the transport message of plaintext, which is already padded.
func (s *session) seal(counter uint64, plaintext []byte) []byte {
	msg := s.frame(make([]byte, 0, len(plaintext)+cipher.Overhead), counter, len(plaintext))
	copy(cipher.Body(msg), plaintext)
	s.send.Seal([][]byte{msg})
	return msg
}

// fresh reports whether an authentic counter comes for the first time: section 5.4.6.
func (s *session) fresh(counter uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return counter < rejectAfterMessages && s.window.take(counter)
}
