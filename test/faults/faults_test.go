package faults_test

import (
	"slices"
	"testing"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/lab"
)

// fault is a row of docs/troubleshooting.md.
type fault struct {
	number int
	name   string
	quick  bool // named in a moment, so that `make test` injects it too
	inject func(t *testing.T, b *bed) []evidence
	heal   func(t *testing.T, b *bed) // takes the fault back; nil when the daemon has mended it
}

// on returns a heal function that runs shell commands on the first node.
func on(script string) func(*testing.T, *bed) {
	return func(t *testing.T, b *bed) { sh(t, b.a, script) }
}

// ofDoctor and ofStatus are evidence on the first node.
func ofDoctor(b *bed, cause, remedy string) []evidence {
	return []evidence{{b.a, []string{"doctor", "--timeout", "2s"}, cause, remedy}}
}

func ofStatus(b *bed, cause, remedy string) []evidence {
	return []evidence{{b.a, []string{"status"}, cause, remedy}}
}

// hostFaults are faults of what a node owns or reads on its host.
func hostFaults() []fault {
	return []fault{
		{5, "a more specific route of another program", true, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "ip route add "+subnetOf(t, b.b, opt.V4)+" via 172.20.0.18 dev eth0")
			return ofStatus(b, `route \S+ dev eth0: this route lies in the overlay 10.244.0.0/16 and hides subnet`, `remove the route`)
		}, func(t *testing.T, b *bed) { sh(t, b.a, "ip route del "+subnetOf(t, b.b, opt.V4)) }},
		{6, "a rule to another table", true, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "ip rule add priority 100 lookup 99; ip route add default via 198.18.0.1 table 99")
			return ofDoctor(b, `the rule "from all" \(priority 100\) sends them to table 99`, `ip rule add to 10.244.0.0/16 lookup main priority 99`)
		}, on("ip rule del priority 100; ip route flush table 99")},
		{7, "docker0 holds an address of a peer's subnet", true, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "ip link add docker0 type bridge; ip link set docker0 up; ip addr add dev docker0 "+gatewayOf(t, b.b))
			return ofStatus(b, `dev docker0: this route lies in the overlay`, `remove the route, or choose another network`)
		}, on("ip link del docker0")},
		{8, "the overlay's route is deleted", true, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "ip route del 10.244.0.0/16 dev loden0")
			return ofDoctor(b, `repairs: \d+ in the last 10m0s: .*routes: add 10.244.0.0/16 through the tunnel`, `find the program that does it`)
		}, nil},
		{9, "forwarding is off", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "sysctl -qw net.ipv4.ip_forward=0")
			return ofDoctor(b, `(repairs: .*net.ipv4.ip_forward|forwarding: this host does not forward IPv4)`, `(find the program|sysctl -w net.ipv4.ip_forward=1)`)
		}, nil},
		{17, "the guard drops a static route of the LAN to the pods", false, func(t *testing.T, b *bed) []evidence {
			pod, _ := b.a.Pods[0].Addrs.V4.Get()
			sh(t, b.Outside, "ip route replace 10.244.0.0/16 via 198.18.0.17; (ping -i 0.2 -w 20 "+pod.String()+" >/dev/null 2>&1 &)")
			return ofDoctor(b, `guard: \d+ packets with overlay addresses were caught outside of the tunnel; now: 198.18.0.1 → `+pod.String()+` arriving on eth1`, `--masq-exclude`)
		}, func(t *testing.T, b *bed) { sh(t, b.Outside, "ip route del 10.244.0.0/16") }},
		{18, "the whole ruleset is flushed", true, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "nft flush ruleset")
			return ofDoctor(b, `repairs: .*firewall: add IPv4`, `a firewall or network service`)
		}, nil},
		{19, "IPv6 is switched off", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
			return ofStatus(b, `(?i)ipv6`, `disable_ipv6=0`)
		}, on("sysctl -qw net.ipv6.conf.all.disable_ipv6=0; ip -6 addr add 2001:db8:21::11/64 dev eth1 nodad; ip -6 route replace default via 2001:db8:21::1 dev eth1")},
		{20, "the pods' bridge loses its IPv6 address", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "ip -6 addr flush dev cni0 scope global")
			return ofDoctor(b, `(repairs: .*gateway address \S+ to cni0|cni0 lacks its IPv6 gateway address)`, `(find the program|ip -6 addr add)`)
		}, nil},
		{24, "another CNI configuration comes first", true, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "echo '{}' >/etc/cni/net.d/05-other.conflist")
			return ofDoctor(b, `05-other.conflist sorts before 10-loden.conflist`, `remove it: mv /etc/cni/net.d/05-other.conflist`)
		}, on("rm /etc/cni/net.d/05-other.conflist")},
		{25, "the pods' bridge has an old subnet", true, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "ip addr add 10.5.22.1/24 dev cni0; ip addr del dev cni0 "+gatewayOf(t, b.a))
			return ofDoctor(b, `cni0 has the address 10.5.22.1/24 of another subnet`, `ip link del cni0`)
		}, on("ip addr del 10.5.22.1/24 dev cni0")},
		{30, "a foreign chain drops forwarded packets", true, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "nft 'add table inet fw; add chain inet fw f { type filter hook forward priority 0; policy drop; }'")
			return []evidence{{b.a, []string{"why", b.a.Pods[0].Addrs.V4.String(), b.b.Pods[0].Addrs.V4.String()}, `broken at packet filters on node1: nft chain inet fw f: its policy drops`, `nft insert rule inet fw f ip saddr 10.244.0.0/16 accept`}}
		}, on("nft delete table inet fw")},
		{31, "the uplink is down", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "ip link set eth0 down")
			return ofStatus(b, `(?i)no (uplink|interface fits|usable|route)|etcd AWAY|is reached at no endpoint`, `→|:`)
		}, on("ip link set eth0 up")},
	}
}

// gatewayOf returns the first address of a node's subnet with its length.
func gatewayOf(t *testing.T, n *lab.Node) string {
	t.Helper()
	env, err := n.Env()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := env.Subnets.V4.Get()
	return config.Gateway(p).String()
}

// engineFaults are faults of the engine and of its device.
func engineFaults() []fault {
	const engine = "pid=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p' /run/loden/loden0.engine); "
	return []fault{
		{21, "the engine is killed", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, engine+"kill -9 $pid")
			return ofDoctor(b, `repairs: .*device: start engine loden`, `loden has mended it`)
		}, nil},
		{22, "the engine hangs", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, engine+"kill -STOP $pid")
			return ofStatus(b, `engine: the userspace engine runs and gives no answer`, `the daemon ends and replaces an engine`)
		}, nil},
		{23, "the tunnel's interface is deleted", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "ip link del loden0")
			return ofDoctor(b, `repairs: .*(device|routes): `, `find the program that does it`)
		}, nil},
		{26, "a preshared key is set by hand", false, func(t *testing.T, b *bed) []evidence {
			sh(t, b.a, "wg genpsk >/run/loden/psk; wg set loden0 peer $(wg show loden0 peers) preshared-key /run/loden/psk; rm /run/loden/psk")
			return ofDoctor(b, `repairs: .*device: set`, `find the program that does it`)
		}, nil},
	}
}

// TestFaultsAreNamedWithTheirRemedy injects a fault at a time.
func TestFaultsAreNamedWithTheirRemedy(t *testing.T) {
	b := newBed(t, lab.Options{Engines: []string{"loden"}}, 2)
	healthy(t, b.a, b.b)
	for _, f := range slices.Concat(hostFaults(), engineFaults(), storeFaults(), pathFaults()) {
		run(t, b, f)
	}
}

// run injects a fault, waits until it is named, heals it, and waits for a healthy cluster, so
// that a fault which stays named spoils the next.
func run(t *testing.T, b *bed, f fault) {
	if !f.quick && !*all {
		return
	}
	t.Run(title(f), func(t *testing.T) {
		defer func() {
			if f.heal != nil {
				f.heal(t, b)
			}
			healthyAgain(t, b)
		}()
		named(t, f.inject(t, b)...)
	})
}
