package wire

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
)

// keep is how many bytes of a packet the kernel hands over: an IPv6 header and a canary.
const keep = 128

// Filter selects overlay traffic: source or destination in a network and
// not in Except. The zero value matches no packet.
type Filter struct {
	Networks opt.Dual[netip.Prefix]
	Except   set.Prefixes // underlay prefixes that lie inside a network
}

// Matches reports whether a packet, from its network header on, carries an overlay
// address in its outermost header.
func (f Filter) Matches(packet []byte) bool {
	p, ok := parse(packet)
	return ok && (f.overlay(p.Src) || f.overlay(p.Dst))
}

func (f Filter) overlay(a netip.Addr) bool {
	family := opt.FamilyOf(a)
	network, ok := f.Networks.Of(family).Get()
	if !ok || !network.Contains(a) {
		return false
	}
	for p := range f.Except.Of(family) {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// Program returns Matches as a program for the kernel: packets that are not overlay traffic are
// never copied out of it. Packets are given from their network header on.
//
//	version 4 ──► source in network, not in except? ──► destination? ──► drop
//	version 6 ──► the same with longer words
func (f Filter) Program() []bpf.Instruction {
	v4, v6 := f.family(opt.V4), f.family(opt.V6)
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 0, Size: 1},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x40, SkipFalse: 1},
		bpf.Jump{Skip: uint32(len(v4))},
	}
	program = append(program, v4...)
	// The accumulator still holds the version here only if it was not 4: the IPv4 part
	// always ends in a verdict.
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0x60, SkipFalse: 1},
		bpf.Jump{Skip: uint32(len(v6))},
	)
	program = append(program, v6...)
	return append(program, bpf.RetConstant{Val: 0})
}

// family tests source and destination of a family and always ends in a verdict.
func (f Filter) family(family opt.Family) []bpf.Instruction {
	network, ok := f.Networks.Of(family).Get()
	if !ok {
		return []bpf.Instruction{bpf.RetConstant{Val: 0}}
	}
	source, destination := uint32(12), uint32(16)
	if family == opt.V6 {
		source, destination = 8, 24
	}
	program := append(f.address(network, source), f.address(network, destination)...)
	return append(program, bpf.RetConstant{Val: 0})
}

// address keeps the packet when the address at off is an overlay address and goes on
// behind its last instruction otherwise.
func (f Filter) address(network netip.Prefix, off uint32) []bpf.Instruction {
	out := []bpf.Instruction{bpf.RetConstant{Val: keep}}
	for p := range f.Except.Of(opt.FamilyOf(network.Addr())) {
		// Inside the exception: skip the rest. Outside: go on behind the jump.
		out = append(within(p, off, []bpf.Instruction{bpf.Jump{Skip: uint32(len(out))}}), out...)
	}
	return within(network, off, out)
}

// within runs then when the address at off is inside p, and goes on behind it otherwise.
func within(p netip.Prefix, off uint32, then []bpf.Instruction) []bpf.Instruction {
	out := then
	bytes := p.Addr().AsSlice()
	for i := (p.Bits() - 1) / 32; i >= 0 && p.Bits() > 0; i-- {
		mask := ^uint32(0)
		if rest := p.Bits() - 32*i; rest < 32 {
			mask <<= 32 - rest
		}
		word := binary.BigEndian.Uint32(bytes[4*i:])
		out = append([]bpf.Instruction{
			bpf.LoadAbsolute{Off: off + 4*uint32(i), Size: 4},
			bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: word & mask, SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(out))},
		}, out...)
	}
	return out
}
