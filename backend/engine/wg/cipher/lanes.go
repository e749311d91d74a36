package cipher

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

const (
	blockSize = 64 // of ChaCha20, bytes
	half      = Lanes / 2
)

// state is the input of ChaCha20 for all lanes: RFC 8439, section 2.3. The assembly knows
// its layout.
type state struct {
	words   [12]uint32 // constants and key: the same in every lane
	block   uint32     // number of the next block; likewise
	_       uint32     // first word of the nonce: zero
	_       [2]uint32
	counter [2][Lanes]uint32 // low and high half of the nonce's counter
}

// accumulator is Poly1305 of eight messages, each in a 64-bit lane: RFC 8439, section
// 2.5. Numbers have three limbs of 44, 44 and 42 bits. The assembly knows its layout.
type accumulator struct {
	h [3][half]uint64
	r [3][half]uint64
	s [2][half]uint64 // 20 × the upper limbs of r: a carry out of 2^130 comes back times 5
}

// lanes is the state of the work on a row of messages.
type lanes struct {
	state  state
	bodies [Lanes]unsafe.Pointer // to the first byte of each body; unused lanes: the first
	size   int                   // of each body, bytes
	keys   [Lanes][blockSize]byte
	sums   [2]accumulator
}

const (
	limb44 = 1<<44 - 1
	limb42 = 1<<42 - 1
)

// begin sets everything up for messages and derives their one-time keys: the first block
// of each key stream (RFC 8439, section 2.6).
func (l *lanes) begin(c *Cipher, messages [][]byte) {
	copy(l.state.words[:], []uint32{0x61707865, 0x3320646e, 0x79622d32, 0x6b206574}) // "expand 32-byte k"
	copy(l.state.words[4:], c.key[:])
	l.size = len(messages[0]) - Overhead
	var keys [Lanes]unsafe.Pointer
	for i := range l.bodies {
		m := messages[0]
		if i < len(messages) {
			m = messages[i]
		}
		l.bodies[i] = unsafe.Pointer(&m[HeaderSize])
		l.state.counter[0][i] = binary.LittleEndian.Uint32(m[8:])
		l.state.counter[1][i] = binary.LittleEndian.Uint32(m[12:])
		keys[i] = unsafe.Pointer(&l.keys[i])
	}
	xorBlocks(&l.state, &keys, len(messages), blockSize)
	for i := range messages {
		l.sums[i/half].begin(i%half, &l.keys[i])
	}
}

// begin clamps and spreads r: RFC 8439, section 2.5.
func (a *accumulator) begin(lane int, key *[blockSize]byte) {
	lo := binary.LittleEndian.Uint64(key[0:]) & 0x0ffffffc0fffffff
	hi := binary.LittleEndian.Uint64(key[8:]) & 0x0ffffffc0ffffffc
	r1, r2 := (lo>>44|hi<<20)&limb44, hi>>24
	a.r[0][lane], a.r[1][lane], a.r[2][lane] = lo&limb44, r1, r2
	a.s[0][lane], a.s[1][lane] = 20*r1, 20*r2
}

// stream encrypts, or decrypts, all bodies.
func (l *lanes) stream(n int) {
	if l.size > 0 {
		l.state.block = 1
		xorBlocks(&l.state, &l.bodies, n, l.size)
	}
}

// authenticate adds the encrypted bodies and their length to the sums.
func (l *lanes) authenticate(n int) {
	var length [16]byte // of the additional data, which there is none of, and of the body
	binary.LittleEndian.PutUint64(length[8:], uint64(l.size))
	var last [half]unsafe.Pointer
	for i := range last {
		last[i] = unsafe.Pointer(&length)
	}
	for from := 0; from < n; from += half {
		sum := &l.sums[from/half]
		if l.size > 0 {
			absorb(sum, (*[half]unsafe.Pointer)(l.bodies[from:]), l.size)
		}
		absorb(sum, &last, len(length))
	}
}

// tag returns the tag of message i: the sum modulo 2^130-5, and the second half of the
// one-time key, modulo 2^128.
func (l *lanes) tag(i int) (tag [16]byte) {
	a, lane := &l.sums[i/half], i%half
	h0, h1, h2 := a.h[0][lane], a.h[1][lane], a.h[2][lane]
	for range 2 { // the limbs may each be a little too large
		h1 += h0 >> 44
		h2 += h1 >> 44
		h0 = h0&limb44 + 5*(h2>>42)
		h1, h2 = h1&limb44, h2&limb42
	}
	h1 += h0 >> 44
	h0 &= limb44
	// h - p = h + 5 - 2^130: taken, without a branch, if it is not negative.
	g0 := h0 + 5
	g1 := h1 + g0>>44
	g2 := h2 + g1>>44
	keep := g2>>42 - 1 // every bit set if h < p
	h0 = h0&keep | g0&limb44&^keep
	h1 = h1&keep | g1&limb44&^keep
	h2 = h2&keep | g2&limb42&^keep
	lo, carry := bits.Add64(h0|h1<<44, binary.LittleEndian.Uint64(l.keys[i][16:]), 0)
	hi, _ := bits.Add64(h1>>20|h2<<24, binary.LittleEndian.Uint64(l.keys[i][24:]), carry)
	binary.LittleEndian.PutUint64(tag[:], lo)
	binary.LittleEndian.PutUint64(tag[8:], hi)
	return tag
}

// wipe overwrites the keys.
func (l *lanes) wipe() {
	clear(l.state.words[:])
	clear(l.keys[:])
	clear(l.sums[:])
}
