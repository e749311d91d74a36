package subnet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// value is a lease as it stands in the store. The first five members are flannel's, in its
// order and with its rules for omitted members; the rest is ours and flannel ignores it.
type value struct {
	PublicIP      string  // "0.0.0.0" when there is none: flannel's type has no absence
	PublicIPv6    *string // null when there is none, but never omitted
	BackendType   string  `json:",omitempty"`
	BackendData   *tunnel `json:",omitempty"` // present when the lease has an IPv4 subnet
	BackendV6Data *tunnel `json:",omitempty"` // present when the lease has an IPv6 subnet

	Node     string `json:",omitempty"`
	Claimed  int64  `json:",omitempty"`
	Reserved bool   `json:",omitempty"`
	Leaving  bool   `json:",omitempty"`
	PortV4   uint16 `json:",omitempty"` // where BackendData cannot say it
	PortV6   uint16 `json:",omitempty"` // where BackendV6Data cannot say it
}

// tunnel is flannel's BackendData of type wireguard.
type tunnel struct {
	PublicKey string
	Port      uint16
}

const backendType = "wireguard"

// maxValue bounds the values that are read from the store, bytes. A lease of ours has about 400.
const maxValue = 16 << 10

// FormatValue returns the value of a lease in the store: flannel's JSON, member for
// member, and then the members of ours. Since is not in it: the store knows.
func FormatValue(l Lease) []byte {
	v := value{PublicIP: "0.0.0.0", Node: l.Node, Claimed: l.Claimed, Reserved: l.Reserved, Leaving: l.Leaving}
	e4, has4 := l.Endpoints.V4.Get()
	e6, has6 := l.Endpoints.V6.Get()
	if has4 {
		v.PublicIP = e4.Addr().String()
	}
	if has6 {
		text := e6.Addr().String()
		v.PublicIPv6 = &text
	}
	if l.Key != (wgtypes.Key{}) {
		v.BackendType = backendType
		// A known port stands in for an unknown one, because a flannel node dials the
		// family that its mode prefers.
		if l.Subnets.V4.Present() {
			v.BackendData = &tunnel{PublicKey: l.Key.String(), Port: firstPort(e4, e6)}
		}
		if l.Subnets.V6.Present() {
			v.BackendV6Data = &tunnel{PublicKey: l.Key.String(), Port: firstPort(e6, e4)}
		}
	}
	p4, p6 := v.ports()
	if has4 && p4 != e4.Port() {
		v.PortV4 = e4.Port()
	}
	if has6 && p6 != e6.Port() {
		v.PortV6 = e6.Port()
	}
	data, _ := json.Marshal(v) // strings, numbers and booleans: it cannot fail
	return data
}

func firstPort(a, b netip.AddrPort) uint16 {
	if a.Port() != 0 {
		return a.Port()
	}
	return b.Port()
}

// ports returns the ports of the IPv4 and the IPv6 endpoint; 0 where none is given.
func (v value) ports() (p4, p6 uint16) {
	var d4, d6 uint16
	if v.BackendData != nil {
		d4 = v.BackendData.Port
	}
	if v.BackendV6Data != nil {
		d6 = v.BackendV6Data.Port
	}
	either := func(ports ...uint16) uint16 {
		for _, p := range ports {
			if p != 0 {
				return p
			}
		}
		return 0
	}
	return either(v.PortV4, d4, d6), either(v.PortV6, d6, d4)
}

// ParseValue reads the value of the lease that holds subnets. Members it does not know are
// ignored; those it needs must be right. An endpoint whose port is not given has port 0. A
// value with no backend at all, as flannel's reservations are written, gives a lease with
// no key.
// The error names the fault in words fit for a Problem. It never panics.
func ParseValue(subnets opt.Dual[netip.Prefix], data []byte) (Lease, error) {
	if len(data) > maxValue {
		return Lease{}, fmt.Errorf("value of %d bytes is longer than %d", len(data), maxValue)
	}
	var v value
	if err := json.Unmarshal(data, &v); err != nil {
		return Lease{}, fmt.Errorf("value is not a lease: %w", err)
	}
	if v.Node != "" && !config.ValidName(v.Node) {
		return Lease{}, fmt.Errorf("node name %q is not one", clip(v.Node))
	}
	l := Lease{
		Node: v.Node, Subnets: subnets, Claimed: v.Claimed, Reserved: v.Reserved, Leaving: v.Leaving,
	}
	var err error
	if l.Endpoints, err = v.endpoints(); err != nil {
		return Lease{}, err
	}
	if v.BackendType == "" && v.BackendData == nil && v.BackendV6Data == nil {
		return l, nil
	}
	if v.BackendType != backendType {
		return Lease{}, fmt.Errorf("backend type %q is not %q", clip(v.BackendType), backendType)
	}
	if l.Key, err = v.key(); err != nil {
		return Lease{}, err
	}
	return l, nil
}

// ParseFlannel reads as much of a lease that flannel wrote as every backend of flannel has:
// the addresses of its node, with port 0. It fails for a lease of ours.
func ParseFlannel(subnets opt.Dual[netip.Prefix], data []byte) (Lease, error) {
	if len(data) > maxValue {
		return Lease{}, fmt.Errorf("value of %d bytes is longer than %d", len(data), maxValue)
	}
	var v struct {
		PublicIP   string
		PublicIPv6 *string
		Node       string
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return Lease{}, fmt.Errorf("value is not a lease: %w", err)
	}
	if v.Node != "" {
		return Lease{}, errors.New("lease has a node name, so flannel did not write it")
	}
	endpoints, err := value{PublicIP: v.PublicIP, PublicIPv6: v.PublicIPv6}.endpoints()
	return Lease{Subnets: subnets, Endpoints: endpoints}, err
}

// key returns the public key of the lease, which its two halves have in common.
func (v value) key() (wgtypes.Key, error) {
	var key opt.Option[wgtypes.Key]
	for _, t := range []*tunnel{v.BackendData, v.BackendV6Data} {
		if t == nil {
			continue
		}
		k, err := wgtypes.ParseKey(t.PublicKey)
		if err != nil {
			return wgtypes.Key{}, errors.New("public key is not a WireGuard key")
		}
		if key.Present() && key.Or(k) != k {
			return wgtypes.Key{}, errors.New("public keys of the two families differ")
		}
		key = opt.Some(k)
	}
	k, ok := key.Get()
	if !ok || k == (wgtypes.Key{}) {
		return wgtypes.Key{}, errors.New("public key is missing")
	}
	return k, nil
}

// endpoints returns where the node can be reached. Validate judges whether the
// address makes sense.
func (v value) endpoints() (opt.Dual[netip.AddrPort], error) {
	var out opt.Dual[netip.AddrPort]
	p4, p6 := v.ports()
	if v.PublicIP != "" {
		a, err := netip.ParseAddr(v.PublicIP)
		if err != nil || !a.Is4() {
			return out, fmt.Errorf("PublicIP %q is not an IPv4 address", clip(v.PublicIP))
		}
		if !a.IsUnspecified() {
			out.V4 = opt.Some(netip.AddrPortFrom(a, p4))
		}
	}
	if v.PublicIPv6 != nil && *v.PublicIPv6 != "" {
		a, err := netip.ParseAddr(*v.PublicIPv6)
		if err != nil || !a.Is6() || a.Zone() != "" {
			return out, fmt.Errorf("PublicIPv6 %q is not an IPv6 address", clip(*v.PublicIPv6))
		}
		out.V6 = opt.Some(netip.AddrPortFrom(a, p6))
	}
	return out, nil
}
