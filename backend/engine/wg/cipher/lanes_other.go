//go:build !amd64

package cipher

import "unsafe"

func hasLanes() bool { return false }

// Not called where hasLanes is false.
func xorBlocks(*state, *[Lanes]unsafe.Pointer, int, int) {}
func absorb(*accumulator, *[half]unsafe.Pointer, int)    {}
