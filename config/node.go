package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/loden-net/loden/config/opt"
)

// Node is this node's own settings. Flags and LODEN_* variables fill it; flannel's flags
// keep their names, meaning and defaults.
type Node struct {
	EtcdEndpoints []string
	EtcdPrefix    string
	EtcdCertFile  string
	EtcdKeyFile   string
	EtcdCAFile    string
	EtcdUsername  string
	EtcdPassword  Secret

	Name          string
	Ifaces        []string
	IfaceRegexes  []string
	IfaceCanReach string
	PublicIP      string
	PublicIPv6    string

	Interface     string // name of the WireGuard interface
	ListenPort    int    // UDP; 0 takes the network document's
	SubnetFile    string
	StateDir      string
	RunDir        string
	ListenAddress string // host:port of status and metrics over TCP; empty serves the unix socket alone

	IPMasq       bool
	IPv6Masq     string
	MasqExclude  []string
	MasqMark     string // value/mask of packets that somebody else masquerades
	ForwardRules bool
	RandomFully  bool
	Engine       string
	Firewall     string
	Guard        string

	LeaseTTL    time.Duration
	RemovalHold time.Duration
	Resync      time.Duration
	WireSample  time.Duration // 0: never

	Wait bool // for another daemon of this node to end, instead of being refused

	CNIConfDir string
	CNIBinDir  string
	CNISource  string

	LogLevel  string
	LogFormat string
}

// Secret is text that never prints.
type Secret string

// String hides the text.
func (Secret) String() string { return "(hidden)" }

// GoString hides the text.
func (Secret) GoString() string { return "(hidden)" }

// Set takes the text from a flag. With String and Type it makes *Secret a pflag.Value.
func (s *Secret) Set(v string) error { *s = Secret(v); return nil }

// Type names the kind of value in usage texts.
func (*Secret) Type() string { return "string" }

// StoreFlags adds the flags that say where etcd is, which every command that speaks to it
// has.
func (n *Node) StoreFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&n.EtcdEndpoints, "etcd-endpoints", []string{"http://127.0.0.1:4001", "http://127.0.0.1:2379"}, "etcd servers, separated by commas")
	fs.StringVar(&n.EtcdPrefix, "etcd-prefix", "/coreos.com/network", "etcd key prefix of the network")
	fs.StringVar(&n.EtcdCertFile, "etcd-certfile", "", "client certificate for etcd")
	fs.StringVar(&n.EtcdKeyFile, "etcd-keyfile", "", "key of the client certificate")
	fs.StringVar(&n.EtcdCAFile, "etcd-cafile", "", "certificate authority that signed etcd's certificate")
	fs.StringVar(&n.EtcdUsername, "etcd-username", "", "etcd user")
	fs.Var(&n.EtcdPassword, "etcd-password", "password of the etcd user; LODEN_ETCD_PASSWORD keeps it out of the process list")
}

// HostFlags adds the flags that say where this node keeps its files, which every command
// that looks at the node has.
func (n *Node) HostFlags(fs *pflag.FlagSet) {
	fs.StringVar(&n.Interface, "interface", "loden0", "name of the WireGuard interface")
	fs.StringVar(&n.SubnetFile, "subnet-file", "/run/flannel/subnet.env", "where the CNI plugin finds this node's subnet")
	fs.StringVar(&n.StateDir, "state-dir", "/var/lib/loden", "directory of the private key and the last known leases")
	fs.StringVar(&n.RunDir, "run-dir", "/run/loden", "directory of the status socket, the lock and the engine's log")
	fs.StringVar(&n.Engine, "engine", "auto", "who encrypts: auto (kernel where it can), kernel, wireguard-go, loden")
	fs.StringVar(&n.Firewall, "firewall", "auto", "who holds the rules: auto, iptables, nftables")
}

// RunFlags adds the flags of the daemon itself.
func (n *Node) RunFlags(fs *pflag.FlagSet) {
	name, _ := os.Hostname() // an empty name is refused by Validate with what to do
	fs.StringVar(&n.Name, "node-name", name, "this node's name in the lease: its identity, with its key")
	fs.StringArrayVar(&n.Ifaces, "iface", nil, "uplink, by name or address; may be given several times, the first that fits is used")
	fs.StringArrayVar(&n.IfaceRegexes, "iface-regex", nil, "uplink, by a regular expression over addresses, then names; tried after --iface")
	fs.StringVar(&n.IfaceCanReach, "iface-can-reach", "", "uplink: the interface that the kernel would use to reach this address")
	fs.StringVar(&n.PublicIP, "public-ip", "", "IPv4 address that other nodes reach this one at; need not be local when --iface is given")
	fs.StringVar(&n.PublicIPv6, "public-ipv6", "", "the same for IPv6")
	fs.IntVar(&n.ListenPort, "listen-port", 0, "UDP port of WireGuard; 0 takes the network document's (51820)")
	fs.StringVar(&n.ListenAddress, "listen-address", "", "serve status and metrics over TCP too, at host:port or :port (loopback)")
	fs.BoolVar(&n.IPMasq, "ip-masq", false, "masquerade traffic from pods to outside the overlay")
	fs.StringVar(&n.IPv6Masq, "ipv6-masq", "auto", "masquerade IPv6 too: auto (unique-local networks only), always, never; needs --ip-masq")
	fs.StringArrayVar(&n.MasqExclude, "masq-exclude", nil, "destination CIDR that is not masqueraded; may be given several times")
	fs.StringVar(&n.MasqMark, "masq-mark", "0x4000/0x4000", "mark and mask of packets that are left alone because somebody else masquerades them (kube-proxy)")
	fs.BoolVar(&n.ForwardRules, "iptables-forward-rules", true, "accept forwarded traffic from and to the overlay")
	fs.BoolVar(&n.RandomFully, "random-fully", true, "randomise source ports fully when masquerading, where supported")
	fs.StringVar(&n.Guard, "guard", "enforce", "overlay addresses in plaintext on an uplink: enforce (drop), warn (count), off")
	fs.DurationVar(&n.LeaseTTL, "lease-ttl", 24*time.Hour, "how long a lease outlives a silent node")
	fs.DurationVar(&n.RemovalHold, "removal-hold", 5*time.Minute, "how long a sudden disappearance of many peers is held back")
	fs.DurationVar(&n.Resync, "resync", 30*time.Second, "how often everything is compared again without a reason")
	fs.DurationVar(&n.WireSample, "wire-sample", 0, "how often to look at the uplinks for overlay addresses in clear, for the metric; 0 never (each look sends a few empty packets of that kind to prove itself)")
	fs.StringVar(&n.CNIConfDir, "cni-conf-dir", "", "install the CNI configuration here once the data path stands")
	fs.StringVar(&n.CNIBinDir, "cni-bin-dir", "", "install the CNI plugins here")
	fs.StringVar(&n.CNISource, "cni-source-dir", "", "where the CNI plugins to install are found (default: beside this program)")
}

// LogFlags adds the flags of logging.
func (n *Node) LogFlags(fs *pflag.FlagSet) {
	fs.StringVar(&n.LogLevel, "log-level", "info", "debug, info, warn, error")
	fs.StringVar(&n.LogFormat, "log-format", "auto", "auto (text on a terminal, else json), text, json")
}

// FromEnvironment fills every flag of fs that the command line did not set from
// LODEN_<NAME>, upper case with '-' as '_'. An empty variable counts as absent. Unlike
// flannel, a value that cannot be read is an error, not a log line.
func FromEnvironment(fs *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		name := EnvName(f.Name)
		value, ok := lookup(name)
		if f.Changed || !ok || value == "" {
			return
		}
		if err := fs.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	})
	return errors.Join(errs...)
}

// EnvName returns the environment variable of a flag.
func EnvName(flag string) string {
	return "LODEN_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// ValidName reports whether s may be a node's name: 1 to 253 letters, digits, '.', '-' and
// '_', a letter or digit first and last. It becomes part of etcd keys and of metrics. (A
// regular expression would be compiled at every start of the CNI plugin, which has no node
// name: 0.7 ms of the 20 that an ADD takes.)
func ValidName(s string) bool {
	plain := func(c byte) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
	}
	if len(s) < 1 || len(s) > 253 || !plain(s[0]) || !plain(s[len(s)-1]) {
		return false
	}
	for i := range len(s) {
		if !plain(s[i]) && !strings.Contains("._-", s[i:i+1]) {
			return false
		}
	}
	return true
}

// Validate checks what can be checked without looking at the machine. Each problem is one
// line that says what to do.
func (n *Node) Validate() error {
	return errors.Join(
		n.validateName(),
		oneOf("engine", n.Engine, "auto", "kernel", "wireguard-go", "loden"),
		oneOf("firewall", n.Firewall, "auto", "iptables", "nftables"),
		oneOf("guard", n.Guard, "enforce", "warn", "off"),
		oneOf("ipv6-masq", n.IPv6Masq, "auto", "always", "never"),
		address("public-ip", n.PublicIP, opt.V4),
		address("public-ipv6", n.PublicIPv6, opt.V6),
		n.validateRest(),
	)
}

func (n *Node) validateName() error {
	if !ValidName(n.Name) {
		return fmt.Errorf("--node-name %q: give a name of letters, digits, '.', '-' and '_'", n.Name)
	}
	if n.Interface == "" || len(n.Interface) > 15 || strings.ContainsAny(n.Interface, "/ \t%") {
		return fmt.Errorf("--interface %q: give a name of 1 to 15 characters", n.Interface)
	}
	return nil
}

func (n *Node) validateRest() error {
	var errs []error
	for _, expr := range n.IfaceRegexes {
		if _, err := regexp.Compile(expr); err != nil {
			errs = append(errs, fmt.Errorf("--iface-regex %q: %w", expr, err))
		}
	}
	if n.IfaceCanReach != "" {
		if _, err := netip.ParseAddr(n.IfaceCanReach); err != nil {
			errs = append(errs, fmt.Errorf("--iface-can-reach %q: give an IP address", n.IfaceCanReach))
		}
	}
	if _, err := n.Excluded(); err != nil {
		errs = append(errs, err)
	}
	if _, _, err := n.ForeignMark(); err != nil {
		errs = append(errs, err)
	}
	if n.ListenPort < 0 || n.ListenPort > 65535 {
		errs = append(errs, fmt.Errorf("--listen-port %d: give 0 to 65535", n.ListenPort))
	}
	if n.LeaseTTL < 10*time.Second {
		errs = append(errs, fmt.Errorf("--lease-ttl %v: give at least 10s", n.LeaseTTL))
	}
	if n.Resync < time.Second {
		errs = append(errs, fmt.Errorf("--resync %v: give at least 1s", n.Resync))
	}
	if n.WireSample != 0 && n.WireSample < 10*time.Second {
		errs = append(errs, fmt.Errorf("--wire-sample %v: give 0, or at least 10s", n.WireSample))
	}
	return errors.Join(errs...)
}

// Excluded returns the prefixes of --masq-exclude, masked.
func (n *Node) Excluded() ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range n.MasqExclude {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--masq-exclude %q: give a CIDR such as 192.0.2.0/24", s)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}

// ForeignMark returns the value and the mask of --masq-mark.
func (n *Node) ForeignMark() (value, mask uint32, err error) {
	v, m, ok := strings.Cut(n.MasqMark, "/")
	v64, err1 := strconv.ParseUint(v, 0, 32)
	m64, err2 := strconv.ParseUint(m, 0, 32)
	if !ok || err1 != nil || err2 != nil || m64 == 0 || v64&^m64 != 0 {
		return 0, 0, fmt.Errorf("--masq-mark %q: give a value and a mask that covers it, such as 0x4000/0x4000", n.MasqMark)
	}
	return uint32(v64), uint32(m64), nil
}

// oneOf checks a choice.
func oneOf(flag, value string, choices ...string) error {
	for _, c := range choices {
		if value == c {
			return nil
		}
	}
	return fmt.Errorf("--%s %q: choose one of %s", flag, value, strings.Join(choices, ", "))
}

// address checks an optional address of one family.
func address(flag, value string, f opt.Family) error {
	if value == "" {
		return nil
	}
	a, err := netip.ParseAddr(value)
	if err != nil || opt.FamilyOf(a) != f || a.Is4In6() {
		return fmt.Errorf("--%s %q: give an %s address", flag, value, f)
	}
	return nil
}
