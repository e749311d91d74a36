package subnet

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/prefix"
)

// ErrOutOfSubnets says that every subnet of a family is taken.
var ErrOutOfSubnets = errors.New("out of subnets")

// Allocate chooses a free subnet for each family of n. A preferred subnet is kept when
// it fits n and overlaps no lease in taken. Otherwise the choice is spread evenly over
// what is free by a hash of seed, so that nodes which start together, each with its own
// name as the seed, rarely meet; a retry passes another seed. The IPv6 subnet has the
// number of the IPv4 subnet where that is free: people find it easier to read.
//
// Only the Subnets of taken matter. The error is ErrOutOfSubnets.
func Allocate(n config.Network, seed string, prefer opt.Dual[netip.Prefix], taken []Lease) (opt.Dual[netip.Prefix], error) {
	var out opt.Dual[netip.Prefix]
	number := opt.None[uint64]()
	for f, r := range n.Ranges.All() {
		s := space{r}
		used := s.used(f, taken)
		index, err := s.choose(used, prefer.Of(f), number, seed)
		if err != nil {
			return opt.Dual[netip.Prefix]{}, fmt.Errorf("allocate an %s subnet of %s: all %d taken: %w", f, r.Network, s.count(), err)
		}
		out = out.With(f, s.at(index))
		number = opt.Some(index)
	}
	return out, nil
}

// space numbers the subnets of a range: SubnetMin is 0.
type space struct{ r config.Range }

// span is a run of subnet numbers, both ends included.
type span struct{ low, high uint64 }

// most bounds how many subnets of a range are ever used: sums of two stay in a uint64.
const most = 1 << 62

// choose returns the number of a free subnet: the preferred subnet, else the
// number of the other family's subnet, else a number that the seed picks. used is sorted and disjoint.
func (s space) choose(used []span, prefer opt.Option[netip.Prefix], number opt.Option[uint64], seed string) (uint64, error) {
	if p, ok := prefer.Get(); ok && s.r.Contains(p) {
		if i := s.index(p.Addr()); isFree(used, i) {
			return i, nil
		}
	}
	if i, ok := number.Get(); ok && i < s.count() && isFree(used, i) {
		return i, nil
	}
	free := s.count()
	for _, u := range used {
		free -= u.high - u.low + 1
	}
	if free == 0 {
		return 0, ErrOutOfSubnets
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(seed)) // a hash never fails to write
	return nth(used, scatter(h.Sum64())%free), nil
}

// scatter mixes the bits of h: the low bits of FNV-1a of like names are alike. The
// constants are those of SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014).
func scatter(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// nth returns the k-th number, from 0, that lies in none of the used spans.
func nth(used []span, k uint64) uint64 {
	for _, u := range used {
		if k < u.low {
			return k
		}
		k += u.high - u.low + 1
	}
	return k
}

func isFree(used []span, i uint64) bool {
	_, hit := slices.BinarySearchFunc(used, i, func(u span, i uint64) int {
		switch {
		case u.high < i:
			return -1
		case u.low > i:
			return 1
		}
		return 0
	})
	return !hit
}

// used returns the numbers that leases overlap, sorted and disjoint.
func (s space) used(f opt.Family, taken []Lease) []span {
	var out []span
	for _, l := range taken {
		p, ok := l.Subnets.Of(f).Get()
		if !ok || !p.Overlaps(s.r.Network) {
			continue
		}
		if u, ok := s.overlap(p); ok {
			out = append(out, u)
		}
	}
	slices.SortFunc(out, func(a, b span) int { return cmp.Compare(a.low, b.low) })
	merged := out[:0]
	for _, u := range out {
		if n := len(merged); n > 0 && u.low <= merged[n-1].high {
			merged[n-1].high = max(merged[n-1].high, u.high)
			continue
		}
		merged = append(merged, u)
	}
	return merged
}

// overlap returns the numbers that p covers, whole or in part.
func (s space) overlap(p netip.Prefix) (span, bool) {
	low, high := p.Masked().Addr(), prefix.Last(p)
	if s.end().Less(low) || high.Less(s.r.SubnetMin) {
		return span{}, false
	}
	u := span{high: s.count() - 1}
	if s.r.SubnetMin.Less(low) {
		u.low = s.index(low)
	}
	if high.Less(s.end()) {
		u.high = min(u.high, s.index(high))
	}
	return u, u.low <= u.high
}

// end returns the last address of the last subnet.
func (s space) end() netip.Addr { return prefix.Last(netip.PrefixFrom(s.r.SubnetMax, s.r.SubnetLen)) }

// count returns how many subnets there are, at most `most`.
func (s space) count() uint64 { return min(s.index(s.r.SubnetMax)+1, most) }

// index returns the number of the subnet that holds a, which is not below SubnetMin; at
// most `most`.
func (s space) index(a netip.Addr) uint64 {
	ah, al := halves(a)
	mh, ml := halves(s.r.SubnetMin)
	low, borrow := bits.Sub64(al, ml, 0)
	high, _ := bits.Sub64(ah, mh, borrow)
	shift := uint(a.BitLen() - s.r.SubnetLen) // SubnetLen is within the family's bits
	high, low = shiftRight(high, low, shift)
	if high != 0 {
		return most
	}
	return min(low, most)
}

// at returns the subnet of a number below count.
func (s space) at(i uint64) netip.Prefix {
	shift := uint(s.r.SubnetMin.BitLen() - s.r.SubnetLen) // as above
	var high, low uint64
	if shift < 64 {
		high, low = i>>(64-shift), i<<shift
	} else {
		high = i << (shift - 64)
	}
	mh, ml := halves(s.r.SubnetMin)
	low, carry := bits.Add64(ml, low, 0)
	high, _ = bits.Add64(mh, high, carry)
	return netip.PrefixFrom(whole(s.r.SubnetMin, high, low), s.r.SubnetLen)
}

func shiftRight(high, low uint64, n uint) (uint64, uint64) {
	if n >= 64 {
		return 0, high >> (n - 64)
	}
	return high >> n, low>>n | high<<(64-n)
}

// halves returns an address as a number of 128 bits.
func halves(a netip.Addr) (high, low uint64) {
	if a.Is4() {
		b := a.As4()
		return 0, uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// whole is the inverse of halves, for an address of like's family.
func whole(like netip.Addr, high, low uint64) netip.Addr {
	if like.Is4() {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(low)) // an IPv4 range stays below 2^32
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], high)
	binary.BigEndian.PutUint64(b[8:], low)
	return netip.AddrFrom16(b)
}
