package wg

import (
	"hash/crc32"
	"io"
	"testing"
)

// fill writes size bytes to w and returns their sum.
func fill(t *testing.T, w io.Writer, size int) uint32 {
	t.Helper()
	sum, seed := crc32.NewIEEE(), uint32(1)
	block := make([]byte, 64<<10)
	for size > 0 {
		for i := range block {
			seed = seed*1664525 + 1013904223
			block[i] = byte(seed >> 24)
		}
		n := min(size, len(block))
		sum.Write(block[:n])
		if _, err := w.Write(block[:n]); err != nil {
			t.Fatal(err)
		}
		size -= n
	}
	return sum.Sum32()
}

// digest reads r to its end and returns the sum.
func digest(r io.Reader) uint32 {
	sum := crc32.NewIEEE()
	_, _ = io.Copy(sum, r) // a cut shows in the sum
	return sum.Sum32()
}
