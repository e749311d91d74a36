package sandbox

import (
	"slices"
	"testing"
)

// An "unreachable" has the ports of the datagram that it quotes.
func TestAnUnreachableHasThePortsOfItsQuote(t *testing.T) {
	ethernet4, ethernet6 := append(make([]byte, 12), 0x08, 0x00), append(make([]byte, 12), 0x86, 0xdd)
	ip4 := func(protocol byte) []byte {
		h := make([]byte, 20)
		h[0], h[9] = 0x45, protocol
		return h
	}
	ip6 := func(protocol byte) []byte {
		h := make([]byte, 40)
		h[0], h[6] = 0x60, protocol
		return h
	}
	udp := []byte{0xca, 0x6c, 0x00, 0x35, 0, 8, 0, 0} // 51820 to 53
	for name, frame := range map[string][]byte{
		"IPv4": slices.Concat(ethernet4, ip4(1), []byte{3, 3, 0, 0, 0, 0, 0, 0}, ip4(17), udp),
		"IPv6": slices.Concat(ethernet6, ip6(58), []byte{1, 4, 0, 0, 0, 0, 0, 0}, ip6(17), udp),
	} {
		if p := ParseFrame(frame); !p.Unreachable() || p.SrcPort != 51820 || p.DstPort != 53 {
			t.Errorf("%s: %+v", name, p)
		}
		for n := range frame {
			ParseFrame(frame[:n]) // any bytes
		}
	}
	echo := slices.Concat(ethernet4, ip4(1), []byte{8, 0, 0, 0, 0, 0, 0, 0}, ip4(17), udp)
	if p := ParseFrame(echo); p.Unreachable() || p.SrcPort != 0 {
		t.Errorf("an echo: %+v", p)
	}
}
