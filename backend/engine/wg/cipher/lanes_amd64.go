package cipher

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// hasLanes reports whether the processor, and the system, have the instructions that the assembly uses.
func hasLanes() bool {
	return cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512IFMA
}

// xorBlocks adds the key stream to size bytes of the first n lanes, from block s.block on,
// which it advances. n is 1 to 16, size at least 1.
//
//go:noescape
func xorBlocks(s *state, at *[Lanes]unsafe.Pointer, n, size int)

// absorb adds size bytes of each of eight messages to their sums, the last block filled up
// with zeros. size is at least 1.
//
//go:noescape
func absorb(a *accumulator, at *[half]unsafe.Pointer, size int)
