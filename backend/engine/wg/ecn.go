package wg

import "encoding/binary"

// ce is the ECN mark "congestion experienced": RFC 3168, section 5.
const ce = 3

// mark sets "congestion experienced" in an IP packet whose outer header carried it, and reports
// false for a packet whose transport does not know ECN.
func mark(pkt []byte) bool {
	switch congestion(pkt) {
	case 0:
		return false
	case ce:
		return true
	}
	if pkt[0]>>4 == 6 {
		pkt[1] |= ce << 4
		return true
	}
	// RFC 1624: HC' = ~(~HC + ~m + m') for the 16-bit word that changes.
	before := binary.BigEndian.Uint16(pkt)
	pkt[1] |= ce
	sum := uint32(^binary.BigEndian.Uint16(pkt[10:])) + uint32(^before) + uint32(binary.BigEndian.Uint16(pkt))
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(pkt[10:], ^uint16(sum))
	return true
}
