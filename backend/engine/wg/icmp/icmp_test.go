package icmp_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/loden-net/loden/backend/engine/wg/icmp"
)

// packet4 and packet6 make a packet of a protocol between two addresses, its header
// checksum left out: nobody looks at it.
func packet4(from, to string, protocol byte, payload ...byte) []byte {
	size := 20 + len(payload)
	b := []byte{0x45, 0, byte(size >> 8), byte(size), 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0}
	b = append(b, netip.MustParseAddr(from).AsSlice()...)
	return append(append(b, netip.MustParseAddr(to).AsSlice()...), payload...)
}

func packet6(from, to string, next byte, payload ...byte) []byte {
	b := []byte{0x60, 0, 0, 0, byte(len(payload) >> 8), byte(len(payload)), next, 64}
	b = append(b, netip.MustParseAddr(from).AsSlice()...)
	return append(append(b, netip.MustParseAddr(to).AsSlice()...), payload...)
}

// slowSum is RFC 1071 word by word: the sum of all words of b, which is 0xffff when the
// checksum among them is right.
func slowSum(b []byte) uint32 {
	sum := uint32(0)
	for i, x := range b {
		if i%2 == 0 {
			sum += uint32(x) << 8
		} else {
			sum += uint32(x)
		}
		for sum > 0xffff {
			sum = sum - 0x10000 + 1
		}
	}
	return sum
}

// check wants got to be a whole message about pkt, in the other direction, with right
// checksums and no larger than it may be; it returns the message from its type on.
func check(t *testing.T, got, pkt []byte) []byte {
	t.Helper()
	var body []byte
	var limit int
	switch got[0] >> 4 {
	case 4:
		body, limit = got[20:], 576
		if slowSum(got[:20]) != 0xffff || slowSum(body) != 0xffff {
			t.Errorf("checksums of %x", got)
		}
		if int(binary.BigEndian.Uint16(got[2:])) != len(got) || got[9] != 1 {
			t.Errorf("header %x", got[:20])
		}
		if !bytes.Equal(got[12:16], pkt[16:20]) || !bytes.Equal(got[16:20], pkt[12:16]) {
			t.Errorf("addresses in %x, about %x", got[:20], pkt[:20])
		}
	case 6:
		body, limit = got[40:], 1280
		pseudo := append(bytes.Clone(got[8:40]), 0, 0, byte(len(body)>>8), byte(len(body)), 0, 0, 0, 58)
		if slowSum(append(pseudo, body...)) != 0xffff {
			t.Errorf("checksum of %x", got)
		}
		if int(binary.BigEndian.Uint16(got[4:])) != len(body) || got[6] != 58 {
			t.Errorf("header %x", got[:40])
		}
		if !bytes.Equal(got[8:24], pkt[24:40]) || !bytes.Equal(got[24:40], pkt[8:24]) {
			t.Errorf("addresses in %x, about %x", got[:40], pkt[:40])
		}
	}
	if quote := body[8:]; len(got) > limit || !bytes.HasPrefix(pkt, quote) || (len(got) < limit && len(quote) < len(pkt)) {
		t.Errorf("%d of %d bytes quoted in %d", len(quote), len(pkt), len(got))
	}
	return body
}

func TestMessagesAreAsTheRFCsDrawThem(t *testing.T) {
	v4 := packet4("10.0.0.1", "10.0.0.9", 17, make([]byte, 1400)...)
	v6 := packet6("fd00::1", "fd00::9", 17, make([]byte, 1400)...)
	for _, c := range []struct {
		name string
		pkt  []byte
		got  []byte
		want [8]byte // but for the checksum
	}{
		{"host unreachable", v4, icmp.Unreachable(nil, v4), [8]byte{3, 1}},
		{"address unreachable", v6, icmp.Unreachable(nil, v6), [8]byte{1, 3}},
		{"fragmentation needed", v4, icmp.TooBig(nil, v4, 1280), [8]byte{3, 4, 6: 5}},
		{"packet too big", v6, icmp.TooBig(nil, v6, 1300), [8]byte{2, 0, 6: 5, 7: 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			head := [8]byte(check(t, c.got, c.pkt))
			head[2], head[3] = 0, 0
			if head != c.want {
				t.Errorf("got %x, want %x", head, c.want)
			}
		})
	}
}

func TestShortPacketIsQuotedWhole(t *testing.T) {
	pkt := packet4("10.0.0.1", "10.0.0.9", 17, 1, 2, 3)
	longer := append(bytes.Clone(pkt), "what follows is not the packet's"...)
	check(t, icmp.Unreachable(nil, longer), pkt)
	pkt = packet6("fd00::1", "fd00::9", 59)
	check(t, icmp.Unreachable(nil, append(bytes.Clone(pkt), 1, 2, 3)), pkt)
}

func TestOnlyWhatTheRFCsAllowIsAnswered(t *testing.T) {
	const a4, b4, a6, b6 = "10.0.0.1", "10.0.0.9", "fd00::1", "fd00::9"
	fragment4 := packet4(a4, b4, 17, 1, 2, 3, 4)
	fragment4[7] = 1
	first4 := packet4(a4, b4, 17, 1, 2, 3, 4)
	first4[6] = 0x20 // more follow
	short4 := packet4(a4, b4, 17, 1, 2, 3, 4)
	echo := []byte{8, 0, 0, 0, 0, 0, 0, 0}
	echo6 := []byte{128, 0, 0, 0, 0, 0, 0, 0}
	options := func(next byte, rest ...byte) []byte { return append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, rest...) }
	for _, c := range []struct {
		name string
		pkt  []byte
		want bool
	}{
		{"UDP", packet4(a4, b4, 17, 1), true},
		{"echo", packet4(a4, b4, 1, echo...), true},
		{"unreachable", packet4(a4, b4, 1, 3, 1, 0, 0, 0, 0, 0, 0), false},
		{"redirect", packet4(a4, b4, 1, 5, 1, 0, 0, 0, 0, 0, 0), false},
		{"time exceeded", packet4(a4, b4, 1, 11, 0, 0, 0, 0, 0, 0, 0), false},
		{"ICMP without a type", packet4(a4, b4, 1), false},
		{"first fragment", first4, true},
		{"later fragment", fragment4, false},
		{"to broadcast", packet4(a4, "255.255.255.255", 17, 1), false},
		{"to multicast", packet4(a4, "224.0.0.251", 17, 1), false},
		{"from nowhere", packet4("0.0.0.0", b4, 17, 1), false},
		{"from multicast", packet4("239.1.1.1", b4, 17, 1), false},
		{"from loopback", packet4("127.0.0.1", b4, 17, 1), false},
		{"cut off", short4[:22], false},
		{"no packet", nil, false},

		{"UDP, IPv6", packet6(a6, b6, 17, 1), true},
		{"echo, IPv6", packet6(a6, b6, 58, echo6...), true},
		{"echo behind options", packet6(a6, b6, 0, options(58, echo6...)...), true},
		{"too big, IPv6", packet6(a6, b6, 58, 2, 0, 0, 0, 0, 0, 0, 0), false},
		{"redirect, IPv6", packet6(a6, b6, 58, 137, 0, 0, 0, 0, 0, 0, 0), false},
		{"error behind options", packet6(a6, b6, 0, options(58, 1, 0, 0, 0, 0, 0, 0, 0)...), false},
		{"error behind AH", packet6(a6, b6, 51, append(append([]byte{58, 1}, make([]byte, 10)...), 1, 0, 0, 0, 0, 0, 0, 0)...), false},
		{"echo behind AH", packet6(a6, b6, 51, append(append([]byte{58, 1}, make([]byte, 10)...), echo6...)...), true},
		{"options that do not end", packet6(a6, b6, 0, 58, 9, 0, 0, 0, 0, 0, 0), false},
		{"first fragment, IPv6", packet6(a6, b6, 44, 17, 0, 0, 1, 0, 0, 0, 0), true},
		{"later fragment, IPv6", packet6(a6, b6, 44, 17, 0, 0, 9, 0, 0, 0, 0), false},
		{"to multicast, IPv6", packet6(a6, "ff02::fb", 17, 1), false},
		{"from nowhere, IPv6", packet6("::", b6, 17, 1), false},
		{"from loopback, IPv6", packet6("::1", b6, 17, 1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := icmp.Unreachable(nil, c.pkt) != nil; got != c.want {
				t.Errorf("answered: %v, want %v", got, c.want)
			}
			if got := icmp.TooBig(nil, c.pkt, 1280) != nil; got != c.want {
				t.Errorf("told that it is too big: %v, want %v", got, c.want)
			}
		})
	}
}

// FuzzAnswer feeds in any packet of a TUN: an answer is whole and true, and is itself not
// answered.
func FuzzAnswer(f *testing.F) {
	f.Add(packet4("10.0.0.1", "10.0.0.9", 17, 1, 2, 3), uint16(1280))
	f.Add(packet4("10.0.0.1", "10.0.0.9", 1, 8, 0, 0, 0, 0, 0, 0, 0), uint16(576))
	f.Add(packet6("fd00::1", "fd00::9", 0, 44, 0, 1, 4, 0, 0, 0, 0, 58, 0, 0, 1, 0, 0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0), uint16(1280))
	f.Add(packet6("fd00::1", "fd00::9", 51, 58, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0), uint16(1420))
	f.Fuzz(func(t *testing.T, pkt []byte, mtu uint16) {
		before := bytes.Clone(pkt)
		for _, got := range [][]byte{icmp.Unreachable(nil, pkt), icmp.TooBig(nil, pkt, mtu)} {
			if got == nil {
				continue
			}
			size := int(binary.BigEndian.Uint16(pkt[2:]))
			if pkt[0]>>4 == 6 {
				size = 40 + int(binary.BigEndian.Uint16(pkt[4:]))
			}
			check(t, got, pkt[:size])
			if len(got) > icmp.MaxSize {
				t.Errorf("%d bytes", len(got))
			}
			if icmp.Unreachable(nil, got) != nil {
				t.Errorf("an error about an error: %x", got)
			}
		}
		if !bytes.Equal(pkt, before) {
			t.Error("the packet was altered")
		}
	})
}
