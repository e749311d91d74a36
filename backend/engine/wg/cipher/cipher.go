// Package cipher owns the encryption of transport messages, ChaCha20-Poly1305 (RFC 8439)
// as WireGuard uses it: the messages of a train, which share a key and a length, are
// encrypted side by side. It knows messages only, and no peers, sockets or clocks.
//
//	           message 0   message 1   …   message 15
//	ChaCha20   a 64-byte block of each at a time: 16 words × 16 messages in 16 registers
//	Poly1305   a 16-byte block of each at a time: 8 messages in a register
//
// That takes AVX-512 with IFMA. Elsewhere, and for a few messages alone, each is encrypted
// by golang.org/x/crypto, with which the tests also compare the lanes.
package cipher

import (
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"reflect"
	"runtime"
	"unsafe"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	// Lanes is how many messages are encrypted side by side.
	Lanes = 16
	// HeaderSize is the size of the header of a message, in bytes: type, receiver's index
	// and counter. The counter is the nonce: white paper, section 5.4.6.
	HeaderSize = 4 + 4 + 8
	// Overhead is by how much a message is longer than its body, in bytes: header and tag.
	Overhead = HeaderSize + chacha20poly1305.Overhead

	// worthwhile is how many messages pay for a pass over all lanes, where the processor has them.
	// Measured on a guest with AVX-512 and IFMA (November 2026): five messages of 1392 bytes in
	// lanes run at 1.12 GB/s, by themselves at 1.27, so a pass costs as much as 5.7 messages; a pass
	// over sixteen messages of 96 bytes costs 7.8. BenchmarkSeal shows both sides of the threshold.
	worthwhile = 7
)

// Cipher encrypts and decrypts under a key. Make it with New; safe for concurrent use.
type Cipher struct {
	one  cipher.AEAD
	key  [8]uint32 // for the lanes alone
	wide bool
}

// New returns the cipher of a key. The caller wipes its own copy. The cipher's copies are wiped
// when no goroutine can reach the cipher any more, by its finalizer: a retired keypair may still be
// in use by a batch that is being encrypted, and a key that is overwritten meanwhile would send
// plaintext under a key of zeros. Go collects garbage every two minutes at least.
func New(key *[32]byte) *Cipher {
	c := &Cipher{wide: hasLanes()}
	c.one, _ = chacha20poly1305.New(key[:]) // fails only for another length
	for i := range c.key {
		c.key[i] = binary.LittleEndian.Uint32(key[4*i:])
	}
	runtime.SetFinalizer(c, (*Cipher).wipe)
	return c
}

// wipe overwrites the keys that the cipher holds.
func (c *Cipher) wipe() {
	clear(c.key[:])
	if key := keyOf(c.one); key != nil {
		clear(key[:])
	}
}

// keyOf returns the key inside a cipher of x/crypto, which has no way to wipe it, or nil when
// x/crypto keeps it in another form: a test fails then.
func keyOf(one cipher.AEAD) *[32]byte {
	v := reflect.ValueOf(one)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return nil
	}
	field := v.Elem().FieldByName("key")
	if !field.IsValid() || field.Type() != reflect.TypeFor[[32]byte]() {
		return nil
	}
	return (*[32]byte)(unsafe.Pointer(field.UnsafeAddr()))
}

// Seal encrypts at most Lanes messages of equal length in place: each is a header, the
// body in plain, and room for the tag.
func (c *Cipher) Seal(messages [][]byte) {
	if c.wide && len(messages) >= worthwhile {
		c.sealLanes(messages)
		return
	}
	for _, m := range messages {
		index := lendIndex(m)
		body := Body(m)
		c.one.Seal(body[:0], nonceOf(m), body, nil)
		binary.LittleEndian.PutUint32(m[4:], index)
	}
}

// Open decrypts at most Lanes messages of equal length, at least Overhead, in place, and
// reports in ok which of them are authentic. The body of a message that is not authentic is undefined.
func (c *Cipher) Open(messages [][]byte, ok *[Lanes]bool) {
	if c.wide && len(messages) >= worthwhile {
		c.openLanes(messages, ok)
		return
	}
	for i, m := range messages {
		index := lendIndex(m)
		body := m[HeaderSize:]
		_, err := c.one.Open(body[:0], nonceOf(m), body, nil)
		binary.LittleEndian.PutUint32(m[4:], index)
		ok[i] = err == nil
	}
}

// Body returns the part of a message that is encrypted, without the tag.
func Body(message []byte) []byte {
	return message[HeaderSize : len(message)-chacha20poly1305.Overhead]
}

// nonceOf returns the nonce of a message, 32 zero bits and its counter, once lendIndex has
// been called: memory of its own would be an allocation for each message.
func nonceOf(m []byte) []byte { return m[4:HeaderSize] }

// lendIndex zeroes the receiver's index, which stands before the counter, and returns it.
func lendIndex(m []byte) uint32 {
	index := binary.LittleEndian.Uint32(m[4:])
	clear(m[4:8])
	return index
}

func (c *Cipher) sealLanes(messages [][]byte) {
	var l lanes
	l.begin(c, messages)
	l.stream(len(messages))
	l.authenticate(len(messages))
	for i, m := range messages {
		tag := l.tag(i)
		copy(m[len(m)-len(tag):], tag[:])
	}
	l.wipe()
}

func (c *Cipher) openLanes(messages [][]byte, ok *[Lanes]bool) {
	var l lanes
	l.begin(c, messages)
	l.authenticate(len(messages))
	for i, m := range messages {
		tag := l.tag(i)
		ok[i] = subtle.ConstantTimeCompare(m[len(m)-len(tag):], tag[:]) == 1
	}
	l.stream(len(messages))
	l.wipe()
}
