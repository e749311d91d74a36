package config

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
)

// Settings are a node's own settings as valid values. Node.Parse makes them from the text
// of the flags; a program that embeds a node may also fill them itself. The zero value has
// no name and no endpoint, and is refused by the node.
type Settings struct {
	Etcd Etcd

	Name    string       // the node's name in its lease
	Uplinks UplinkChoice // which interfaces lead to the other nodes

	Interface     string // name of the WireGuard interface, 1 to 15 bytes
	ListenPort    uint16 // UDP; 0 takes the network document's
	SubnetFile    string // path of subnet.env
	StateDir      string // directory of the private key and of the leases on disk
	RunDir        string // directory of the status socket, the lock and the engine's log
	ListenAddress string // host:port of status and metrics over TCP; empty serves the unix socket alone

	Engine string // auto, kernel, wireguard-go or loden
	// NoOffload names the offloads that a started engine leaves off, separated by commas:
	// tun-rx, tun-tx, udp-rx, udp-tx. "" leaves all on. The engine loden alone has them.
	NoOffload string
	Firewall  string // auto, iptables or nftables
	Rules     Rules

	LeaseTTL    time.Duration // how long the lease outlives a silent node
	RemovalHold time.Duration // how long a sudden disappearance of many peers is held back
	StoreWait   time.Duration // how long a started node waits for etcd before it removes anything
	Resync      time.Duration // time between two passes without a reason
	WireSample  time.Duration // time between two samples of the uplinks; 0 takes no samples

	ProbeInterval time.Duration // time between two probes of a path to a peer; 0 sends and answers none

	MetricsPeers int // peers with series of their own in the metrics, the first by name

	StandBy bool // wait for the end of another daemon of this node instead of refusing to start

	CNI CNI
}

// Etcd says where the store is and with which credentials the node opens it.
type Etcd struct {
	Endpoints  []string // http:// or https:// URLs
	Prefix     string   // key prefix of the network
	CertFile   string   // client certificate
	KeyFile    string   // key of the client certificate
	CAFile     string   // certificate authority that signed etcd's certificate
	ServerName string   // name in etcd's certificate; "" is the host of the endpoint
	Username   string
	Password   Secret
}

// UplinkChoice says which interfaces are the node's uplinks. The zero value means the
// interface of each family's default route.
type UplinkChoice struct {
	Ifaces   []string               // names or addresses, the first that fits is used
	Regexes  []*regexp.Regexp       // matched with addresses, then with names; tried after Ifaces
	CanReach opt.Option[netip.Addr] // the interface by which the kernel reaches this address
	Public   opt.Dual[netip.Addr]   // the announced address, instead of the uplink's own
}

// Rules is the operator's firewall policy.
type Rules struct {
	Masq        bool           // masquerade traffic from pods to destinations outside the overlay
	IPv6Masq    string         // auto, always or never
	Exclude     []netip.Prefix // destinations that are not masqueraded, masked
	Mark        Mark           // packets with this mark are masqueraded by another program
	Forward     bool           // accept forwarded traffic from and to the overlay
	RandomFully bool           // randomise source ports fully
	Guard       string         // enforce, warn or off
	GuardPorts  set.Ports      // TCP ports of nodes and of hosts outside that are closed to pods
}

// Mark is a packet mark: a packet fits when its mark has Value in the bits of Mask.
type Mark struct {
	Value, Mask uint32
}

// CNI says where the CNI plugins and their configuration are installed. An empty directory
// switches the installation off.
type CNI struct {
	ConfDir string // of the configuration
	BinDir  string // of the plugins
	Source  string // directory that the plugins are copied from; empty means beside the program
}

// The least durations that Parse accepts.
const (
	minLeaseTTL   = 10 * time.Second
	minResync     = time.Second
	minWireSample = 10 * time.Second

	minProbeInterval = time.Second
)

// Parse checks the text of the flags and returns valid settings. The error joins every
// problem, one line each, and each line names the flag and its remedy.
func (n *Node) Parse() (Settings, error) {
	p := parser{}
	s := Settings{
		Etcd: n.Etcd(),
		Name: p.name(n.Name),
		Uplinks: UplinkChoice{
			Ifaces: slices.Clone(n.Ifaces), Regexes: p.regexes(n.IfaceRegexes), CanReach: p.reach(n.IfaceCanReach),
			Public: opt.Dual[netip.Addr]{V4: p.address("public-ip", n.PublicIP, opt.V4), V6: p.address("public-ipv6", n.PublicIPv6, opt.V6)},
		},
		Interface: p.iface(n.Interface), ListenPort: p.port(n.ListenPort), SubnetFile: n.SubnetFile, StateDir: n.StateDir,
		RunDir: n.RunDir, ListenAddress: n.ListenAddress,
		Engine:    p.oneOf("engine", n.Engine, "auto", "kernel", "wireguard-go", "loden"),
		NoOffload: p.offloads(n.NoOffload, n.Engine),
		Firewall:  p.oneOf("firewall", n.Firewall, "auto", "iptables", "nftables"),
		Rules: Rules{
			Masq: n.IPMasq, IPv6Masq: p.oneOf("ipv6-masq", n.IPv6Masq, "auto", "always", "never"), Exclude: p.prefixes(n.MasqExclude),
			Mark: p.mark(n.MasqMark), Forward: n.ForwardRules, RandomFully: n.RandomFully,
			Guard: p.oneOf("guard", n.Guard, "enforce", "warn", "off"), GuardPorts: p.guardPorts(n.GuardPorts, n.Guard),
		},
		LeaseTTL:    p.atLeast("lease-ttl", n.LeaseTTL, minLeaseTTL),
		RemovalHold: p.atLeast("removal-hold", n.RemovalHold, 0),
		StoreWait:   p.atLeast("store-wait", n.StoreWait, 0),
		Resync:      p.atLeast("resync", n.Resync, minResync),
		StandBy:     n.Wait,

		MetricsPeers: n.MetricsPeers,

		CNI: CNI{ConfDir: n.CNIConfDir, BinDir: n.CNIBinDir, Source: n.CNISource},
	}
	if n.MetricsPeers < 0 {
		p.refuse("--metrics-peers %d is negative: give the number of peers that have series of their own, or 0", n.MetricsPeers)
	}
	if n.WireSample != 0 {
		s.WireSample = p.atLeast("wire-sample", n.WireSample, minWireSample)
	}
	if n.ProbeInterval != 0 {
		s.ProbeInterval = p.atLeast("probe-interval", n.ProbeInterval, minProbeInterval)
	}
	if len(n.EtcdEndpoints) == 0 {
		p.refuse("--etcd-endpoints is empty: give the URL of an etcd server, such as http://127.0.0.1:2379")
	}
	return s, errors.Join(p.errs...)
}

// Etcd returns the settings of the store. There is no text in them to parse.
func (n *Node) Etcd() Etcd {
	return Etcd{
		Endpoints: bracketed(n.EtcdEndpoints), Prefix: n.EtcdPrefix, CertFile: n.EtcdCertFile, KeyFile: n.EtcdKeyFile,
		CAFile: n.EtcdCAFile, ServerName: n.EtcdServerName, Username: n.EtcdUsername, Password: n.EtcdPassword,
	}
}

// bracketed puts the brackets of RFC 3986 around a bare IPv6 address in a URL with a port, as in
// https://fd00::1:2379. Kubernetes announces the address of a service without brackets, and a
// manifest cannot know the family (kubernetes issue 60695).
func bracketed(endpoints []string) []string {
	out := slices.Clone(endpoints)
	for i, e := range out {
		scheme, rest, ok := strings.Cut(e, "://")
		at := strings.LastIndexByte(rest, ':')
		if !ok || at < 0 {
			continue
		}
		if addr, err := netip.ParseAddr(rest[:at]); err == nil && addr.Is6() {
			out[i] = scheme + "://[" + rest[:at] + "]" + rest[at:]
		}
	}
	return out
}

// parser collects the problems of a set of flags, so that the operator sees all of them.
type parser struct{ errs []error }

func (p *parser) refuse(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf(format, args...))
}

func (p *parser) name(text string) string {
	if !ValidName(text) {
		p.refuse("--node-name %q: give a name of letters, digits, '.', '-' and '_'", text)
	}
	return text
}

func (p *parser) iface(text string) string {
	if text == "" || len(text) > 15 || strings.ContainsAny(text, "/ \t%") {
		p.refuse("--interface %q: give a name of 1 to 15 characters without '/', '%%' and spaces", text)
	}
	return text
}

func (p *parser) port(n int) uint16 {
	if n < 0 || n > 65535 {
		p.refuse("--listen-port %d: give 0 to 65535", n)
		return 0
	}
	return uint16(n)
}

func (p *parser) guardPorts(text, guard string) set.Ports {
	ports, err := set.ParsePorts(text)
	if err != nil {
		p.refuse("--guard-ports: %w", err)
	}
	if !ports.IsZero() && guard == "off" {
		p.refuse("--guard-ports %s closes no port without the guard: use --guard enforce, or leave --guard-ports out", ports)
	}
	return ports
}

func (p *parser) oneOf(flag, value string, choices ...string) string {
	if !slices.Contains(choices, value) {
		p.refuse("--%s %q: choose one of %s", flag, value, strings.Join(choices, ", "))
	}
	return value
}

// offloads reads names of offloads and returns them sorted, without duplicates.
func (p *parser) offloads(names []string, engine string) string {
	known := []string{"tun-rx", "tun-tx", "udp-rx", "udp-tx"}
	var off []string
	for _, name := range names {
		if name = strings.TrimSpace(name); !slices.Contains(known, name) {
			p.refuse("--engine-no-offload: %q is not an offload: choose among %s", name, strings.Join(known, ", "))
			continue
		}
		off = append(off, name)
	}
	if len(off) > 0 && (engine == "kernel" || engine == "wireguard-go") {
		p.refuse("--engine-no-offload needs --engine loden: the engine %s has no switches for offloads", engine)
	}
	slices.Sort(off)
	return strings.Join(slices.Compact(off), ",")
}

func (p *parser) atLeast(flag string, d, least time.Duration) time.Duration {
	if d < least {
		p.refuse("--%s %v: give at least %v", flag, d, least)
	}
	return d
}

// address reads an optional address of a family.
func (p *parser) address(flag, text string, f opt.Family) opt.Option[netip.Addr] {
	if text == "" {
		return opt.None[netip.Addr]()
	}
	a, err := netip.ParseAddr(text)
	if err != nil || opt.FamilyOf(a) != f || a.Is4In6() {
		p.refuse("--%s %q: give an %s address", flag, text, f)
	}
	return opt.Some(a)
}

func (p *parser) reach(text string) opt.Option[netip.Addr] {
	if text == "" {
		return opt.None[netip.Addr]()
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		p.refuse("--iface-can-reach %q: give an IP address", text)
	}
	return opt.Some(a)
}

func (p *parser) regexes(texts []string) []*regexp.Regexp {
	var out []*regexp.Regexp
	for _, text := range texts {
		re, err := regexp.Compile(text)
		if err != nil {
			p.refuse("--iface-regex %q: %w", text, err)
			continue
		}
		out = append(out, re)
	}
	return out
}

func (p *parser) prefixes(texts []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			p.refuse("--masq-exclude %q: give a CIDR such as 192.0.2.0/24", text)
			continue
		}
		out = append(out, prefix.Masked())
	}
	return out
}

// mark reads a value and a mask in the form of iptables.
func (p *parser) mark(text string) Mark {
	v, m, ok := strings.Cut(text, "/")
	value, err1 := strconv.ParseUint(v, 0, 32)
	mask, err2 := strconv.ParseUint(m, 0, 32)
	if !ok || err1 != nil || err2 != nil || mask == 0 || value&^mask != 0 {
		p.refuse("--masq-mark %q: give a value and a mask that covers it, such as 0x4000/0x4000", text)
		return Mark{}
	}
	return Mark{Value: uint32(value), Mask: uint32(mask)}
}
