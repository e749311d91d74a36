package offload

import (
	"encoding/binary"
	"math/bits"
)

// Sum returns the ones' complement sum of b and initial, both as 16-bit words in network
// order, not inverted (RFC 1071). An odd last byte counts as the high half of a word.
func Sum(b []byte, initial uint16) uint16 {
	// Words are added in the machine's order and swapped once at the end: RFC 1071,
	// section 2(B). Eight at a time, with the carry of each addition fed into the next.
	var acc, carry uint64
	for len(b) >= 64 {
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[8:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[16:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[24:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[32:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[40:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[48:]), carry)
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b[56:]), carry)
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail [8]byte
	copy(tail[:], b)
	acc, carry = bits.Add64(acc, binary.NativeEndian.Uint64(tail[:]), carry)
	acc, carry = bits.Add64(acc, 0, carry)
	acc += carry
	var word [2]byte
	binary.NativeEndian.PutUint16(word[:], fold(acc))
	return fold(uint64(binary.BigEndian.Uint16(word[:])) + uint64(initial))
}

// fold adds the 16-bit words of sum with end-around carry.
func fold(sum uint64) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// pseudo is the sum of the pseudo-header for a transport of size bytes. addresses are the
// source and destination as they lie in the IP header.
func pseudo(addresses []byte, protocol uint8, size int) uint16 {
	return Sum(addresses, fold(uint64(protocol)+uint64(size)))
}

// Complete fills in the checksum that h says is missing from pkt, which is a single packet, not
// a super-packet: the field already holds the sum of the pseudo-header.
func Complete(h Header, pkt []byte) error {
	if !h.NeedsChecksum {
		return nil
	}
	start, at := int(h.ChecksumStart), int(h.ChecksumStart)+int(h.ChecksumOffset)
	if at+2 > len(pkt) {
		return ErrMalformed
	}
	binary.BigEndian.PutUint16(pkt[at:], checksum(Sum(pkt[start:], 0)))
	return nil
}

// checksum returns the checksum for a sum: never 0, which means "no checksum" in UDP (RFC 768),
// and which IPv6 forbids there (RFC 8200, section 8.1). The UDP header may lie behind headers that
// are not read here (VXLAN, GRE, IP in IP), and in other protocols 0xffff is as good as 0, so
// the rule is for every packet, as in the kernel (skb_checksum_help, CSUM_MANGLED_0).
func checksum(sum uint16) uint16 {
	if sum == 0xffff {
		return 0xffff
	}
	return ^sum
}
