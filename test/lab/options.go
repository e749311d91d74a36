package lab

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/loden-net/loden/config/opt"
)

// Families says which address families are switched on.
type Families string

// The choices of families.
const (
	Dual Families = "dual"
	IPv4 Families = "ipv4"
	IPv6 Families = "ipv6"
)

// Has reports whether family is switched on.
func (f Families) Has(family opt.Family) bool {
	return f == Dual || (f == IPv4) == (family == opt.V4)
}

// List returns the families that are switched on, IPv4 first.
func (f Families) List() []opt.Family {
	var out []opt.Family
	for _, family := range opt.Families() {
		if f.Has(family) {
			out = append(out, family)
		}
	}
	return out
}

// Options describes a lab.
type Options struct {
	Nodes    int      // at least 1
	Pods     int      // on each node
	Families Families // of the overlay
	Underlay Families // IPv4 or IPv6: the family that carries the tunnels and etcd
	Engines  []string // --engine of the first node, the second, … and round again; none means auto
	Flags    []string // further flags of every `loden run`
	First    []string // further flags of the first node's `loden run`
	Bin      string   // absolute directory of the programs; plugins are in its "cni"

	// Report gets each step as a line without line end. It may be called by
	// several goroutines at once.
	Report func(line string)
}

// Validate checks the options without looking at the machine.
func (o Options) Validate() error {
	switch {
	case o.Nodes < 1 || o.Nodes > 200:
		return fmt.Errorf("%d nodes: give 1 to 200", o.Nodes)
	case o.Families != Dual && o.Families != IPv4 && o.Families != IPv6:
		return fmt.Errorf("families %q: choose dual, ipv4 or ipv6", o.Families)
	case o.Underlay != IPv4 && o.Underlay != IPv6:
		return fmt.Errorf("underlay %q: choose ipv4 or ipv6", o.Underlay)
	case !filepath.IsAbs(o.Bin):
		return fmt.Errorf("directory of programs %q: give an absolute path", o.Bin)
	}
	return nil
}

// engine returns the --engine of node n, counted from 0.
func (o Options) engine(n int) string {
	if len(o.Engines) == 0 {
		return "auto"
	}
	return o.Engines[n%len(o.Engines)]
}

// The ports the lab expects on the underlay.
const (
	WireGuardPort = 51820
	MovedPort     = 51900 // after a test changed the document
	etcdPort      = 2379
	answerPort    = 7 // of the outside host's answer service
)

// The address plan. Hosts are counted from the network's own address.
const (
	outsideNumber = 1
	storeNumber   = 2
	firstNode     = 17
)

// overlay returns the cluster's networks, from which pods get their addresses.
func overlay() opt.Dual[netip.Prefix] {
	return opt.Dual[netip.Prefix]{
		V4: opt.Some(netip.MustParsePrefix("10.244.0.0/16")),
		V6: opt.Some(netip.MustParsePrefix("fd10:244::/48")),
	}
}

// underlay returns the networks of the "underlay" switch.
func underlay() opt.Dual[netip.Prefix] {
	return opt.Dual[netip.Prefix]{
		V4: opt.Some(netip.MustParsePrefix("172.20.0.0/16")),
		V6: opt.Some(netip.MustParsePrefix("2001:db8:20::/64")),
	}
}

// internet returns the networks of the "internet" switch.
func internet() opt.Dual[netip.Prefix] {
	return opt.Dual[netip.Prefix]{
		V4: opt.Some(netip.MustParsePrefix("198.18.0.0/16")),
		V6: opt.Some(netip.MustParsePrefix("2001:db8:21::/64")),
	}
}

// address returns the number-th address of a prefix, with the prefix's length.
func address(p netip.Prefix, number int) netip.Prefix {
	bytes := p.Addr().AsSlice()
	bytes[len(bytes)-1] = byte(number)
	bytes[len(bytes)-2] = byte(number >> 8)
	addr, _ := netip.AddrFromSlice(bytes) // a slice of an address is an address
	return netip.PrefixFrom(addr, p.Bits())
}

// addresses returns the number-th address of each network that f switches on.
func addresses(nets opt.Dual[netip.Prefix], f Families, number int) opt.Dual[netip.Prefix] {
	var out opt.Dual[netip.Prefix]
	for family, p := range nets.All() {
		if f.Has(family) {
			out = out.With(family, address(p, number))
		}
	}
	return out
}

// Document returns the network document of the families in flannel's form.
func Document(f Families) []byte {
	doc := map[string]any{
		"EnableIPv4": f.Has(opt.V4),
		"EnableIPv6": f.Has(opt.V6),
		"Backend":    map[string]any{"Type": "wireguard"},
	}
	nets := overlay()
	if f.Has(opt.V4) {
		doc["Network"], doc["SubnetLen"] = nets.V4, 24
	}
	if f.Has(opt.V6) {
		doc["IPv6Network"], doc["IPv6SubnetLen"] = nets.V6, 64
	}
	data, _ := json.MarshalIndent(doc, "", "  ") // a map of plain values always marshals
	return append(data, '\n')
}
