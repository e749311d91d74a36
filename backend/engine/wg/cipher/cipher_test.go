package cipher

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/crypto/chacha20poly1305"
	"pgregory.net/rapid"
)

// model seals a message with golang.org/x/crypto, into memory of its own.
func model(key *[32]byte, m []byte) []byte {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic(err) // impossible: the key has 32 bytes
	}
	nonce := make([]byte, 12)
	copy(nonce[4:], m[8:16])
	return aead.Seal(slices.Clone(m[:HeaderSize]), nonce, m[HeaderSize:len(m)-16], nil)
}

// row returns n messages with bodies of size bytes, in a single piece of memory at a random
// offset, with a guard byte between them.
func row(random *rand.Rand, n, size int) (messages [][]byte, guards []*byte) {
	stride := size + Overhead + 1
	memory := make([]byte, n*stride+64)[random.IntN(64):]
	for i := range memory {
		memory[i] = byte(random.Uint32())
	}
	counter := random.Uint64() >> random.IntN(64)
	for i := range n {
		m := memory[i*stride:][: size+Overhead : size+Overhead]
		binary.LittleEndian.PutUint64(m[8:], counter+uint64(i))
		messages = append(messages, m)
		guards = append(guards, &memory[i*stride+size+Overhead])
	}
	return messages, guards
}

func clone(messages [][]byte) (out [][]byte) {
	for _, m := range messages {
		out = append(out, slices.Clone(m))
	}
	return out
}

// ways calls f with a cipher for every way this machine can take.
func ways(t *testing.T, key *[32]byte, f func(c *Cipher)) {
	t.Helper()
	c := New(key)
	f(c)
	if c.wide {
		narrow := *c
		narrow.wide = false
		f(&narrow)
	}
}

func TestLanesSealAndOpenAsTheModelDoes(t *testing.T) {
	if !hasLanes() {
		t.Log("this processor has no AVX-512 with IFMA: only the narrow way is tested")
	}
	rapid.Check(t, func(rt *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		n := rapid.IntRange(1, Lanes).Draw(rt, "messages")
		size := rapid.OneOf(rapid.IntRange(0, 200), rapid.SampledFrom([]int{1392, 1420, 8920}), rapid.IntRange(0, 9000)).Draw(rt, "size")
		var key [32]byte
		for i := range key {
			key[i] = byte(random.Uint32())
		}
		ways(t, &key, func(c *Cipher) { sealAndOpen(rt, c, &key, random, n, size) })
	})
}

func sealAndOpen(t *rapid.T, c *Cipher, key *[32]byte, random *rand.Rand, n, size int) {
	messages, guards := row(random, n, size)
	plain := clone(messages)
	before := make([]byte, n)
	for i, g := range guards {
		before[i] = *g
	}
	c.Seal(messages)
	for i, m := range messages {
		if want := model(key, plain[i]); !bytes.Equal(m, want) {
			t.Fatalf("wide %t: message %d of %d, %d bytes:\ngot  %x\nwant %x", c.wide, i, n, size, m, want)
		}
		if *guards[i] != before[i] {
			t.Fatalf("wide %t: message %d of %d, %d bytes: written beyond its end", c.wide, i, n, size)
		}
	}
	altered := random.IntN(2 * n) // often none
	if altered < n {
		bit := random.IntN(8 * (size + 16 + 8)) // of body, tag and counter
		messages[altered][8+bit/8] ^= 1 << (bit % 8)
	}
	var ok [Lanes]bool
	c.Open(messages, &ok)
	for i, m := range messages {
		if ok[i] != (i != altered) {
			t.Fatalf("wide %t: message %d of %d is authentic: %t; altered was %d", c.wide, i, n, ok[i], altered)
		}
		if ok[i] && !bytes.Equal(Body(m), Body(plain[i])) {
			t.Fatalf("wide %t: message %d of %d, %d bytes, decrypts to %x, want %x", c.wide, i, n, size, Body(m), Body(plain[i]))
		}
	}
}

// Keys at random hardly ever meet the rare carries of Poly1305, so the sums are given
// extreme numbers here, and compared with arithmetic of math/big.
func TestSumsCarryAtTheirLimits(t *testing.T) {
	if !hasLanes() {
		t.Log("this processor has no AVX-512 with IFMA: nothing to test")
		return
	}
	extremes := [][]byte{{0}, {0xff}, {0xff, 0, 0, 0}, {0xfb}, {0, 0xff}, {1}}
	for _, size := range []int{1, 16, 17, 48, 63, 64, 65, 1024} {
		for _, key := range extremes {
			for _, text := range extremes {
				checkSum(t, repeat(key, 32), repeat(text, size))
			}
		}
	}
}

func repeat(pattern []byte, size int) []byte { return bytes.Repeat(pattern, size)[:size] }

// checkSum compares the tag of text, as lane 3 computes it, with its definition: RFC 8439,
// section 2.5. The last block is filled up with zeros, as the AEAD does (section 2.8).
func checkSum(t *testing.T, key, text []byte) {
	t.Helper()
	const lane = 3
	var l lanes
	copy(l.keys[lane][:], key)
	l.sums[0].begin(lane, &l.keys[lane])
	var at [half]unsafe.Pointer
	for i := range at {
		at[i] = unsafe.Pointer(&text[0])
	}
	absorb(&l.sums[0], &at, len(text))

	little := func(b []byte) *big.Int {
		b = slices.Clone(b)
		slices.Reverse(b)
		return new(big.Int).SetBytes(b)
	}
	clamp, _ := new(big.Int).SetString("0ffffffc0ffffffc0ffffffc0fffffff", 16)
	r := new(big.Int).And(little(key[:16]), clamp)
	p, _ := new(big.Int).SetString("3fffffffffffffffffffffffffffffffb", 16)
	sum := new(big.Int)
	for block := range slices.Chunk(text, 16) {
		sum.Add(sum, little(append(slices.Grow(slices.Clone(block), 17)[:16:16], 1)))
		sum.Mul(sum, r).Mod(sum, p)
	}
	sum.Add(sum, little(key[16:])).And(sum, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1)))
	tag := l.tag(lane)
	if got := little(tag[:]); got.Cmp(sum) != 0 {
		t.Errorf("key %x, %d bytes of %x…: tag %x, want %x", key, len(text), text[0], got, sum)
	}
}

func FuzzOpenTakesNothingThatTheModelRefuses(f *testing.F) {
	f.Add([]byte("0123456789abcdef0123456789abcdef0123"), uint8(7))
	f.Fuzz(func(t *testing.T, data []byte, n uint8) {
		if len(data) < Overhead {
			return
		}
		messages := make([][]byte, n%Lanes+1)
		for i := range messages {
			messages[i] = slices.Clone(data)
			messages[i][len(data)-1] += byte(i)
		}
		key := [32]byte{1}
		want := make([]bool, len(messages))
		for i, m := range messages {
			aead, _ := chacha20poly1305.New(key[:])
			_, err := aead.Open(nil, slices.Concat(make([]byte, 4), m[8:16]), m[HeaderSize:], nil)
			want[i] = err == nil
		}
		var ok [Lanes]bool
		New(&key).Open(messages, &ok)
		if !slices.Equal(ok[:len(messages)], want) {
			t.Errorf("authentic: %v, want %v", ok, want)
		}
	})
}

func TestWipedCipherHoldsNoKey(t *testing.T) {
	key := [32]byte{1, 2, 3, 31: 4}
	c := New(&key)
	inner := keyOf(c.one)
	if inner == nil || *inner != key {
		t.Fatal("the key inside x/crypto's cipher is not found: its form has changed")
	}
	c.wipe()
	if *inner != [32]byte{} || c.key != [8]uint32{} {
		t.Error("a key is left")
	}
}

func TestNothingIsAllocated(t *testing.T) {
	messages, _ := row(rand.New(rand.NewPCG(1, 2)), Lanes, 1420)
	c := New(&[32]byte{1})
	var ok [Lanes]bool
	if n := testing.AllocsPerRun(100, func() {
		for _, row := range [][][]byte{messages, messages[:1]} {
			c.Seal(row)
			c.Open(row, &ok)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, size := range []int{96, 1392, 8920} {
		for _, n := range []int{4, 5, 6, 7, 8, 9, 16} {
			for _, wide := range []bool{false, true} {
				b.Run(fmt.Sprintf("%dx%d/wide=%t", n, size, wide), func(b *testing.B) {
					messages, _ := row(rand.New(rand.NewPCG(1, 2)), n, size)
					c := New(&[32]byte{1})
					b.SetBytes(int64(n * size))
					for b.Loop() {
						if wide && c.wide {
							c.sealLanes(messages)
						} else {
							narrow := *c
							narrow.wide = false
							narrow.Seal(messages)
						}
					}
				})
			}
		}
	}
}
