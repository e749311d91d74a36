package config

import (
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Node is the text of this node's own settings, as flags and LODEN_* variables give it.
// Flannel's flags keep their names, meaning and defaults. Parse makes valid Settings of it.
type Node struct {
	EtcdEndpoints  []string
	EtcdPrefix     string
	EtcdCertFile   string
	EtcdKeyFile    string
	EtcdCAFile     string
	EtcdServerName string
	EtcdUsername   string
	EtcdPassword   Secret

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
	ListenAddress string // host:port of the page, status and metrics over TCP; empty serves the unix socket alone

	IPMasq       bool
	IPv6Masq     string
	MasqExclude  []string
	MasqMark     string // value/mask of packets that another program masquerades
	ForwardRules bool
	RandomFully  bool
	Engine       string
	NoOffload    []string // offloads that the engine leaves off
	Firewall     string
	Guard        string
	GuardPorts   string

	LeaseTTL    time.Duration
	RemovalHold time.Duration
	Resync      time.Duration
	WireSample  time.Duration // 0: never

	MetricsPeers int // peers with series of their own in /metrics; 0: none

	ProbeInterval time.Duration // 0: never

	StoreWait time.Duration

	Wait bool // stand by until another daemon of this node ends, instead of being refused

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

// StoreFlags adds the flags that say where etcd is. Every command that uses etcd has them.
func (n *Node) StoreFlags(fs *pflag.FlagSet) {
	fs.StringSliceVar(&n.EtcdEndpoints, "etcd-endpoints", []string{"http://127.0.0.1:4001", "http://127.0.0.1:2379"}, "etcd servers, separated by commas")
	fs.StringVar(&n.EtcdPrefix, "etcd-prefix", "/coreos.com/network", "etcd key prefix of the network")
	fs.StringVar(&n.EtcdCertFile, "etcd-certfile", "", "client certificate for etcd")
	fs.StringVar(&n.EtcdKeyFile, "etcd-keyfile", "", "key of the client certificate")
	fs.StringVar(&n.EtcdCAFile, "etcd-cafile", "", "certificate authority that signed etcd's certificate")
	fs.StringVar(&n.EtcdServerName, "etcd-server-name", "", "name in etcd's certificate, when it differs from the host in --etcd-endpoints")
	fs.StringVar(&n.EtcdUsername, "etcd-username", "", "etcd user")
	fs.Var(&n.EtcdPassword, "etcd-password", "password of the etcd user; LODEN_ETCD_PASSWORD keeps it out of the process list")
}

// HostFlags adds the flags that say where this node keeps its files. Every command that
// reads the node's state has them.
func (n *Node) HostFlags(fs *pflag.FlagSet) {
	fs.StringVar(&n.Interface, "interface", "loden0", "name of the WireGuard interface")
	fs.StringVar(&n.SubnetFile, "subnet-file", "/run/flannel/subnet.env", "where the CNI plugin finds this node's subnet")
	fs.StringVar(&n.StateDir, "state-dir", "/var/lib/loden", "directory of the private key and the last known leases")
	fs.StringVar(&n.RunDir, "run-dir", "/run/loden", "directory of the status socket, the lock and the engine's log")
	fs.StringVar(&n.Engine, "engine", "auto", "WireGuard implementation: auto (the kernel's where it has one), kernel, wireguard-go, loden")
	fs.StringVar(&n.Firewall, "firewall", "auto", "firewall driver: auto, iptables, nftables")
}

// RunFlags adds the flags of the daemon itself.
func (n *Node) RunFlags(fs *pflag.FlagSet) {
	name, _ := os.Hostname() // Parse refuses an empty name, and names the flag
	fs.StringVar(&n.Name, "node-name", name, "this node's name in the lease: its identity, with its key")
	fs.StringArrayVar(&n.Ifaces, "iface", nil, "uplink, by name or address; may be given several times, the first that fits is used")
	fs.StringArrayVar(&n.IfaceRegexes, "iface-regex", nil, "uplink, by a regular expression over addresses, then names; tried after --iface")
	fs.StringVar(&n.IfaceCanReach, "iface-can-reach", "", "uplink: the interface that the kernel would use to reach this address")
	fs.StringVar(&n.PublicIP, "public-ip", "", "IPv4 address at which other nodes reach this node; it need not be local when --iface is given")
	fs.StringVar(&n.PublicIPv6, "public-ipv6", "", "IPv6 address at which other nodes reach this node")
	fs.IntVar(&n.ListenPort, "listen-port", 0, "UDP port of WireGuard; 0 takes the network document's (51820)")
	fs.StringVar(&n.ListenAddress, "listen-address", "", "serve the page, status and metrics over TCP too, at host:port or :port (loopback)")
	fs.BoolVar(&n.IPMasq, "ip-masq", false, "masquerade traffic from pods to outside the overlay")
	fs.StringVar(&n.IPv6Masq, "ipv6-masq", "auto", "masquerade IPv6 too: auto (unique-local networks only), always, never; needs --ip-masq")
	fs.StringArrayVar(&n.MasqExclude, "masq-exclude", nil, "destination CIDR that is not masqueraded; may be given several times")
	fs.StringVar(&n.MasqMark, "masq-mark", "0x4000/0x4000", "mark and mask of packets that another program masquerades (kube-proxy), and that are left alone here")
	fs.BoolVar(&n.ForwardRules, "iptables-forward-rules", true, "accept forwarded traffic from and to the overlay")
	fs.BoolVar(&n.RandomFully, "random-fully", true, "randomise source ports fully when masquerading, where supported")
	fs.StringSliceVar(&n.NoOffload, "engine-no-offload", nil, "offloads that an engine started from now on leaves off, for kernels and cards that corrupt: tun-rx, tun-tx, udp-rx, udp-tx")
	fs.StringVar(&n.Guard, "guard", "enforce", "overlay addresses in plaintext on an uplink: enforce (drop), warn (count), off")
	fs.StringVar(&n.GuardPorts, "guard-ports", "", "TCP ports of nodes and of hosts outside that the guard closes to pods, as in 22379,22380: the ports of an etcd of Loden's own")
	fs.DurationVar(&n.LeaseTTL, "lease-ttl", 24*time.Hour, "how long a lease outlives a silent node")
	fs.DurationVar(&n.RemovalHold, "removal-hold", 5*time.Minute, "how long a sudden disappearance of many peers is held back")
	fs.DurationVar(&n.StoreWait, "store-wait", 5*time.Minute, "how long a started node waits for etcd before it removes peers that its leases on disk do not name")
	fs.DurationVar(&n.Resync, "resync", 30*time.Second, "time between two comparisons of the whole host without a reason")
	fs.DurationVar(&n.WireSample, "wire-sample", 0, "time between two samples of the uplinks for overlay addresses in clear, for the metric; 0 takes none (each sample sends a few empty packets with overlay addresses to prove itself)")
	fs.IntVar(&n.MetricsPeers, "metrics-peers", 200, "how many peers have series of their own in /metrics, the first by name; the totals count all peers")
	fs.DurationVar(&n.ProbeInterval, "probe-interval", 10*time.Second, "time between two probes of a path to a peer, through the tunnel; above 64 peers they take turns; 0 sends and answers none")
	fs.StringVar(&n.CNIConfDir, "cni-conf-dir", "", "install the CNI configuration here once the data path stands")
	fs.StringVar(&n.CNIBinDir, "cni-bin-dir", "", "install the CNI plugins here")
	fs.StringVar(&n.CNISource, "cni-source-dir", "", "where the CNI plugins to install are found (default: beside this program)")
}

// LogFlags adds the flags of logging.
func (n *Node) LogFlags(fs *pflag.FlagSet) {
	fs.StringVar(&n.LogLevel, "log-level", "info", "debug, info, warn, error")
	fs.StringVar(&n.LogFormat, "log-format", "auto", "auto (text on a terminal, else json), text, json")
}

// ValidName reports whether s may be a node's name: 1 to 253 letters, digits, '.', '-' and
// '_', a letter or digit first and last. It becomes part of etcd keys and of metrics. (A
// regular expression would be compiled at every start of the CNI plugin, which uses no node
// name: 0.7 ms of the 20 ms of an ADD.)
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
