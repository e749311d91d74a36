package cipher

import (
	"math/rand/v2"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The assembly reads and writes whole registers. Each message here ends at an inaccessible page,
// or begins behind such a page, so an access beyond the message ends the test with a fault.
func TestNoAccessBeyondAMessage(t *testing.T) {
	page := os.Getpagesize()
	var rooms [Lanes][]byte
	for i := range rooms {
		m, err := unix.Mmap(-1, 0, 3*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Munmap(m) })
		for _, outside := range [][]byte{m[:page], m[2*page:]} {
			if err := unix.Mprotect(outside, unix.PROT_NONE); err != nil {
				t.Fatal(err)
			}
		}
		rooms[i] = m[page : 2*page]
	}
	random := rand.New(rand.NewPCG(1, 2))
	key := [32]byte{9}
	ways(t, &key, func(c *Cipher) {
		for size := 0; size <= 1440; size = next(size) {
			for n := 1; n <= Lanes; n++ {
				for _, atEnd := range []bool{true, false} {
					pass(t, c, rooms, random, n, size, atEnd)
				}
			}
		}
	})
}

// next returns the next size: every size of the first blocks, then sizes around each block.
func next(size int) int {
	if size < 200 || size%64 < 3 {
		return size + 1
	}
	return size + 61
}

// pass seals and opens n messages with bodies of size bytes at an end of their rooms.
func pass(t *testing.T, c *Cipher, rooms [Lanes][]byte, random *rand.Rand, n, size int, atEnd bool) {
	t.Helper()
	messages := make([][]byte, n)
	for i := range messages {
		length := size + Overhead
		messages[i] = rooms[i][:length:length]
		if atEnd {
			messages[i] = rooms[i][len(rooms[i])-length:]
		}
		for j := range messages[i][:HeaderSize] {
			messages[i][j] = byte(random.Uint32())
		}
	}
	var ok [Lanes]bool
	c.Seal(messages)
	c.Open(messages, &ok)
	for i := range messages {
		if !ok[i] {
			t.Fatalf("message %d of %d with %d bytes is refused", i, n, size)
		}
	}
}

// An altered bit anywhere behind the type and the index is refused, in its lane alone.
func TestForgeryIsRefusedInItsLaneAlone(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	key := [32]byte{7}
	ways(t, &key, func(c *Cipher) {
		for range 4_000 {
			n, size := 1+random.IntN(Lanes), random.IntN(300)
			messages, _ := row(random, n, size)
			c.Seal(messages)
			forged := random.Uint32() & (1<<n - 1)
			for i, m := range messages {
				if forged>>i&1 == 1 {
					bit := 8*8 + random.IntN(8*(len(m)-8)) // the counter, the body or the tag
					m[bit/8] ^= 1 << (bit % 8)
				}
			}
			var ok [Lanes]bool
			c.Open(messages, &ok)
			for i := range messages {
				if ok[i] == (forged>>i&1 == 1) {
					t.Fatalf("lane %d of %d with %d bytes: taken %t, lanes forged %b", i, n, size, ok[i], forged)
				}
			}
		}
	})
}
