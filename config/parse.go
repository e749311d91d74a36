package config

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// document is the network document as it stands in etcd: flannel's members, each of which
// may be missing. Go's decoder takes keys in any case and ignores unknown ones, as
// flannel does; NetworkWarnings names them.
type document struct {
	EnableIPv4     opt.Option[bool]        `json:"EnableIPv4,omitzero"`
	EnableIPv6     opt.Option[bool]        `json:"EnableIPv6,omitzero"`
	EnableNFTables opt.Option[bool]        `json:"EnableNFTables,omitzero"`
	Network        opt.Option[string]      `json:"Network,omitzero"`
	SubnetLen      opt.Option[int]         `json:"SubnetLen,omitzero"`
	SubnetMin      opt.Option[string]      `json:"SubnetMin,omitzero"`
	SubnetMax      opt.Option[string]      `json:"SubnetMax,omitzero"`
	IPv6Network    opt.Option[string]      `json:"IPv6Network,omitzero"`
	IPv6SubnetLen  opt.Option[int]         `json:"IPv6SubnetLen,omitzero"`
	IPv6SubnetMin  opt.Option[string]      `json:"IPv6SubnetMin,omitzero"`
	IPv6SubnetMax  opt.Option[string]      `json:"IPv6SubnetMax,omitzero"`
	Backend        opt.Option[backendData] `json:"Backend,omitzero"`
}

// backendData is the document's Backend object with the options of type wireguard.
type backendData struct {
	Type       string             `json:"Type"`
	ListenPort opt.Option[int]    `json:"ListenPort,omitzero"`
	PSK        opt.Option[string] `json:"PSK,omitzero"`
	MTU        opt.Option[int]    `json:"MTU,omitzero"`
	Keepalive  opt.Option[int]    `json:"PersistentKeepaliveInterval,omitzero"` // seconds
	Mode       opt.Option[string] `json:"Mode,omitzero"`
}

// DefaultPort is WireGuard's usual UDP port, and flannel's default.
const DefaultPort = 51820

// ParseNetwork reads and checks a network document. Defaults, rules and error texts are
// flannel's, plus checks that flannel leaves out: the family of IPv6Network, a network that
// overlaps loopback, link-local or multicast addresses or holds half the world, a minimum
// above its maximum, and an IPv6 range with fewer subnets than the IPv4 range.
// NetworkWarnings says what in the document has no effect.
func ParseNetwork(data []byte) (Network, error) {
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return Network{}, fmt.Errorf("read network document: %w", err)
	}
	n := Network{NFTables: doc.EnableNFTables.Or(false)}
	if doc.EnableIPv4.Or(true) {
		r, err := parseRange(v4Names, doc.Network, doc.SubnetLen, doc.SubnetMin, doc.SubnetMax)
		if err != nil {
			return Network{}, err
		}
		n.Ranges.V4 = opt.Some(r)
	}
	if doc.EnableIPv6.Or(false) {
		r, err := parseRange(v6Names, doc.IPv6Network, doc.IPv6SubnetLen, doc.IPv6SubnetMin, doc.IPv6SubnetMax)
		if err != nil {
			return Network{}, err
		}
		n.Ranges.V6 = opt.Some(r)
	}
	if n.Ranges.Len() == 0 {
		return Network{}, errors.New("EnableIPv4 and EnableIPv6 are both off: switch at least one on")
	}
	if err := checkCapacity(n.Ranges); err != nil {
		return Network{}, err
	}
	var err error
	n.Backend, err = parseBackend(doc.Backend)
	return n, err
}

// names are the names of a family's members, and its limits, as in flannel's error texts.
type names struct {
	family                     opt.Family
	network, tooSmall          string
	minimum, maximum           string
	longest, smallest, natural int // longest SubnetLen, longest Network, default SubnetLen
}

var (
	v4Names = names{opt.V4, "Network", "network", "SubnetMin", "SubnetMax", 30, 28, 24}
	v6Names = names{opt.V6, "IPv6Network", "IPv6Network", "IPv6SubnetMin", "IPv6SubnetMax", 126, 124, 64}
)

// parseRange applies flannel's rules to a family, in flannel's order.
func parseRange(n names, network opt.Option[string], length opt.Option[int], low, high opt.Option[string]) (Range, error) {
	prefix, err := parseNetworkPrefix(n, network.Or(""))
	if err != nil {
		return Range{}, err
	}
	r := Range{Network: prefix}
	if r.SubnetLen, err = subnetLen(n, prefix, length); err != nil {
		return Range{}, err
	}
	first, last := bounds(prefix, r.SubnetLen)
	if r.SubnetMin, err = bound(n, n.minimum, low, first, r); err != nil {
		return Range{}, err
	}
	if r.SubnetMax, err = bound(n, n.maximum, high, last, r); err != nil {
		return Range{}, err
	}
	if r.SubnetMax.Less(r.SubnetMin) {
		return Range{}, fmt.Errorf("%s %s is above %s %s: swap them", n.minimum, r.SubnetMin, n.maximum, r.SubnetMax)
	}
	return r, nil
}

// parseNetworkPrefix reads the network of a family. The unspecified /0 counts as empty, as
// in flannel.
func parseNetworkPrefix(n names, text string) (netip.Prefix, error) {
	empty := fmt.Errorf("please define a correct %s parameter in the flannel config", n.network)
	if text == "" {
		return netip.Prefix{}, empty
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || opt.FamilyOf(p.Addr()) != n.family || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("invalid %s CIDR format in %s: %q", n.family, n.network, text)
	}
	if p = p.Masked(); p.Bits() == 0 {
		return netip.Prefix{}, empty
	}
	return p, checkNetwork(n, p)
}

// subnetLen returns the length of a node's subnet, given or by default.
func subnetLen(n names, network netip.Prefix, given opt.Option[int]) (int, error) {
	length, ok := given.Get()
	switch {
	case ok && length != 0 && length > n.longest:
		return 0, fmt.Errorf("SubnetLen must be less than /%d", n.longest+1)
	case ok && length != 0 && length < network.Bits()+2:
		return 0, errors.New("network must be able to accommodate at least four subnets")
	case ok && length != 0:
		return length, nil
	case network.Bits() > n.smallest:
		return 0, fmt.Errorf("%s is too small. Minimum useful network prefix is /%d", n.tooSmall, n.smallest)
	case network.Bits() <= n.natural-2:
		return n.natural, nil
	}
	return network.Bits() + 2, nil
}

// bounds returns the first and the last subnet of a network that may be handed out. The
// very first subnet never is: its network address is the overlay's own.
func bounds(network netip.Prefix, length int) (first, last netip.Addr) {
	low, high := network.Addr().AsSlice(), network.Addr().AsSlice()
	low[(length-1)/8] |= 0x80 >> ((length - 1) % 8)
	for bit := network.Bits(); bit < length; bit++ {
		high[bit/8] |= 0x80 >> (bit % 8)
	}
	first, _ = netip.AddrFromSlice(low)
	last, _ = netip.AddrFromSlice(high)
	return first, last
}

// bound returns an end of the range, given or by default, and checks that it lies in the
// network on a subnet's boundary.
func bound(n names, name string, given opt.Option[string], standard netip.Addr, r Range) (netip.Addr, error) {
	text, ok := given.Get()
	if !ok || text == "" {
		return standard, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil || opt.FamilyOf(a) != n.family || a.Is4In6() || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%s %q is not an %s address", name, text, n.family)
	}
	if !r.Network.Contains(a) {
		return netip.Addr{}, fmt.Errorf("%s is not in the range of the %s", name, n.network)
	}
	if netip.PrefixFrom(a, r.SubnetLen).Masked().Addr() != a {
		return netip.Addr{}, fmt.Errorf("%s is not on a SubnetLen boundary: %s", name, a)
	}
	return a, nil
}

// checkCapacity refuses a dual-stack network that would run out of IPv6 subnets before IPv4
// subnets: every node needs a subnet of each family, and IPv6 space is free.
func checkCapacity(ranges opt.Dual[Range]) error {
	r4, ok4 := ranges.V4.Get()
	r6, ok6 := ranges.V6.Get()
	if !ok4 || !ok6 {
		return nil
	}
	c4, c6 := r4.Capacity(), r6.Capacity()
	if c6.Cmp(c4) >= 0 {
		return nil
	}
	return fmt.Errorf("IPv6Network holds %s subnets, fewer than the %s of Network, and every node needs one of each: "+
		"widen IPv6Network, raise IPv6SubnetLen, or narrow SubnetMin and SubnetMax", c6, c4)
}

// Capacity returns how many subnets the range can hand out.
func (r Range) Capacity() *big.Int {
	span := new(big.Int).Sub(number(r.SubnetMax), number(r.SubnetMin))
	span.Rsh(span, uint(r.Network.Addr().BitLen()-r.SubnetLen)) // SubnetLen is within the family's bits
	return span.Add(span, big.NewInt(1))
}

func number(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }

// parseBackend reads the Backend object. A document without a Backend means WireGuard: Loden
// has no other backend.
func parseBackend(given opt.Option[backendData]) (Backend, error) {
	data, ok := given.Get()
	if ok && data.Type != "wireguard" {
		return Backend{}, fmt.Errorf(`unknown Backend.Type %q: Loden encrypts always, write "Backend": {"Type": "wireguard"}`, data.Type)
	}
	b := Backend{MTU: data.MTU, Keepalive: time.Duration(data.Keepalive.Or(0)) * time.Second}
	port := data.ListenPort.Or(DefaultPort)
	if port == 0 {
		port = DefaultPort
	}
	if port < 1 || port > 65535 {
		return Backend{}, fmt.Errorf("Backend.ListenPort %d: give 1 to 65535", port)
	}
	b.ListenPort = uint16(port)
	if mtu, ok := b.MTU.Get(); ok && mtu == 0 {
		b.MTU = opt.None[int]()
	} else if ok && (mtu < 576 || mtu > 65535) {
		return Backend{}, fmt.Errorf("Backend.MTU %d: give the underlay's, 576 to 65535 bytes", mtu)
	}
	if s := b.Keepalive / time.Second; s < 0 || s > 65535 {
		return Backend{}, fmt.Errorf("Backend.PersistentKeepaliveInterval %d: give 0 to 65535 seconds", s)
	}
	var err error
	if b.PresharedKey, err = parsePSK(data.PSK.Or("")); err != nil {
		return Backend{}, err
	}
	b.Mode, err = parseMode(data.Mode.Or(""))
	return b, err
}

// parsePSK reads a base64 key. The error never holds the text, which may be the secret
// with a typing error in it.
func parsePSK(text string) (opt.Option[PresharedKey], error) {
	if text == "" {
		return opt.None[PresharedKey](), nil
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != len(PresharedKey{}) {
		return opt.None[PresharedKey](), errors.New("Backend.PSK is not a WireGuard key: make one with `wg genpsk`")
	}
	return opt.Some(PresharedKey(raw)), nil
}

func parseMode(text string) (Mode, error) {
	switch text {
	case "", "separate", string(ModeAuto):
		return ModeAuto, nil
	case string(ModeIPv4):
		return ModeIPv4, nil
	case string(ModeIPv6):
		return ModeIPv6, nil
	}
	return "", fmt.Errorf("no valid Mode configured: Backend.Mode %q, choose one of auto, ipv4, ipv6, separate", text)
}

// MarshalJSON writes the effective document with flannel's key names, defaults included.
// A pre-shared key is hidden.
func (n Network) MarshalJSON() ([]byte, error) {
	doc := document{
		EnableIPv4: opt.Some(n.Ranges.V4.Present()), EnableIPv6: opt.Some(n.Ranges.V6.Present()),
		EnableNFTables: opt.Some(n.NFTables),
	}
	if r, ok := n.Ranges.V4.Get(); ok {
		doc.Network, doc.SubnetLen = opt.Some(r.Network.String()), opt.Some(r.SubnetLen)
		doc.SubnetMin, doc.SubnetMax = opt.Some(r.SubnetMin.String()), opt.Some(r.SubnetMax.String())
	}
	if r, ok := n.Ranges.V6.Get(); ok {
		doc.IPv6Network, doc.IPv6SubnetLen = opt.Some(r.Network.String()), opt.Some(r.SubnetLen)
		doc.IPv6SubnetMin, doc.IPv6SubnetMax = opt.Some(r.SubnetMin.String()), opt.Some(r.SubnetMax.String())
	}
	b := backendData{
		Type: "wireguard", ListenPort: opt.Some(int(n.Backend.ListenPort)), MTU: n.Backend.MTU,
		Keepalive: opt.Some(int(n.Backend.Keepalive / time.Second)), Mode: opt.Some(string(n.Backend.Mode)),
	}
	if n.Backend.PresharedKey.Present() {
		b.PSK = opt.Some("(hidden)")
	}
	doc.Backend = opt.Some(b)
	return json.Marshal(doc)
}
