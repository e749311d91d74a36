package peer

import (
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/loden-net/loden/backend/engine/wg/cipher"
	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/state"
	"github.com/loden-net/loden/config/opt"
)

// Keypair is the two transport keys that a finished handshake leaves, with the counters of both
// directions. Its methods are safe for concurrent use and take no lock of the peer.
type Keypair struct {
	peer      *Peer
	initiator bool // this side began the handshake: only the initiator renews by time
	created   Moment
	local     uint32 // index in messages to this side
	remote    uint32 // index in messages to the peer

	send, receive *cipher.Cipher
	counter       atomic.Uint64 // of messages sent
	renewing      atomic.Bool   // receiving has asked for the next handshake
	closed        atomic.Bool

	mu     sync.Mutex // guards window
	window window

	keys noise.Keys // guarded by Peer.mu: another process needs them after a hand-over
}

// newKeypair takes the keys over and wipes the caller's copy. The keypair's own copy lives until
// the keypair is retired; the ciphers wipe theirs when the garbage collector finds them.
func newKeypair(p *Peer, keys *noise.Keys, local uint32, initiator bool, now Moment) *Keypair {
	k := &Keypair{
		peer: p, initiator: initiator, created: now, local: local, remote: keys.Remote,
		send: cipher.New((*[32]byte)(&keys.Send)), receive: cipher.New((*[32]byte)(&keys.Receive)), keys: *keys,
	}
	keys.Wipe()
	return k
}

// Peer returns the peer at the other end.
func (k *Keypair) Peer() *Peer { return k.peer }

// LocalIndex returns the index in messages to this side.
func (k *Keypair) LocalIndex() uint32 { return k.local }

// Usable reports whether k may still encrypt: section 6.1.
func (k *Keypair) Usable(now Moment) bool {
	return !k.closed.Load() && now-k.created < rejectAfterTime && k.counter.Load() < rejectAfterMessages
}

// MayReceive reports whether k may still decrypt: section 6.1.
func (k *Keypair) MayReceive(now Moment) bool {
	return !k.closed.Load() && now-k.created < rejectAfterTime
}

// Reserve takes n message counters and returns the first, or false when the counters are used up.
// No counter is handed out twice, however many goroutines reserve.
func (k *Keypair) Reserve(n int) (uint64, bool) {
	for {
		from := k.counter.Load()
		if from >= rejectAfterMessages || uint64(n) >= rejectAfterMessages-from {
			k.counter.Store(rejectAfterMessages) // and stay there: a counter never wraps
			return 0, false
		}
		if k.counter.CompareAndSwap(from, from+uint64(n)) {
			return from, true
		}
	}
}

// rekeyDue reports whether sending should bring about the next handshake: section 6.2.
func (k *Keypair) rekeyDue(now Moment) bool {
	return k.counter.Load() > rekeyAfterMessages || (k.initiator && now-k.created >= rekeyAfterTime)
}

// Frame appends to dst a transport message whose body of size bytes is still to be written, and
// then to be encrypted by Seal: section 5.4.6. dst has the capacity.
func (k *Keypair) Frame(dst []byte, counter uint64, size int) []byte {
	from := len(dst)
	dst = dst[:from+size+cipher.Overhead]
	binary.LittleEndian.PutUint32(dst[from:], noise.TypeTransport)
	binary.LittleEndian.PutUint32(dst[from+4:], k.remote)
	binary.LittleEndian.PutUint64(dst[from+8:], counter)
	return dst
}

// Seal encrypts framed messages of equal length in place.
func (k *Keypair) Seal(messages [][]byte) { k.send.Seal(messages) }

// Open decrypts messages of equal length in place, and says which of them are authentic.
func (k *Keypair) Open(messages [][]byte, authentic *[cipher.Lanes]bool) {
	k.receive.Open(messages, authentic)
}

// message returns the transport message of plaintext, which is already padded.
func (k *Keypair) message(counter uint64, plaintext []byte) []byte {
	msg := k.Frame(make([]byte, 0, len(plaintext)+cipher.Overhead), counter, len(plaintext))
	copy(cipher.Body(msg), plaintext)
	k.send.Seal([][]byte{msg})
	return msg
}

// Accept reports whether the counter of an authentic message comes for the first time, and
// remembers it: section 5.4.6. It returns false for a replay and for a counter that is too old.
func (k *Keypair) Accept(counter uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return counter < rejectAfterMessages && k.window.take(counter)
}

// spareCounters are skipped in the messages that the next process sends. No spare counter would
// be needed, since this process has stopped sending; but a counter used twice would give the
// keystream away, so the hand-over does not rest on that alone. The gap stays far below the
// receiver's window.
const spareCounters = 1 << 10

// export returns the state of a keypair, if there is a keypair. The caller holds Peer.mu.
func (k *Keypair) export() opt.Option[state.Keypair] {
	if k == nil {
		return opt.None[state.Keypair]()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return opt.Some(state.Keypair{
		Keys: k.keys, Local: k.local, Initiator: k.initiator, Created: k.created,
		Counter: min(k.counter.Load()+spareCounters, rejectAfterMessages), Window: k.window.export(),
	})
}

// resumeKeypair continues a keypair of the process before: with the next counter, and with the
// counters that are still to be received.
func resumeKeypair(p *Peer, from state.Keypair) *Keypair {
	k := newKeypair(p, &from.Keys, from.Local, from.Initiator, from.Created)
	k.counter.Store(from.Counter)
	k.window.resume(from.Window)
	p.local.indices.grant(from.Local, k)
	return k
}
