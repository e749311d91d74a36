package page

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/node"
	"github.com/loden-net/loden/network/node/history"
	"github.com/loden-net/loden/subnet"
)

// Cluster is nodes with made-up paths between them. Node 0 is the node that is asked. Make it
// with NewCluster; it is safe for concurrent use.
type Cluster struct {
	Events  history.Events
	samples *history.Samples
	names   []string
	now     time.Time

	mu     sync.Mutex // guards the fields below
	random *rand.Rand
	state  map[[3]int]string  // by nodes and family, where it is not up
	weight map[[2]int]float64 // of the traffic between two nodes, bytes per second
}

// NewCluster returns a cluster of n nodes at a time. Equal arguments give equal clusters.
func NewCluster(n int, now time.Time) *Cluster {
	c := &Cluster{
		samples: history.NewSamples(), now: now, random: rand.New(rand.NewPCG(1, uint64(n))),
		state: map[[3]int]string{}, weight: map[[2]int]float64{},
	}
	few := []string{"alpha", "beta", "gamma"}
	for i := range n {
		switch {
		case n <= len(few):
			c.names = append(c.names, few[i])
		case i < n/10+1:
			c.names = append(c.names, fmt.Sprintf("control-%d", i+1))
		default:
			c.names = append(c.names, fmt.Sprintf("worker-%03d", i-n/10))
		}
	}
	for i := range n {
		for j := range i {
			if n <= 20 || c.random.IntN(8) == 0 {
				c.weight[[2]int{j, i}] = math.Pow(10, 2+5*c.random.Float64())
			}
		}
	}
	c.breakSome()
	c.remember()
	return c
}

// breakSome gives a cluster of more than three nodes a few faults: a node that is away, and
// paths that lose packets, large packets, or a direction.
func (c *Cluster) breakSome() {
	n := len(c.names)
	if n <= 3 {
		return
	}
	dead := n - 3
	for i := range n {
		for f := range 2 {
			c.state[[3]int{i, dead, f}], c.state[[3]int{dead, i, f}] = "down", "down"
		}
	}
	for i := range n / 6 {
		a, b := c.random.IntN(dead), c.random.IntN(dead)
		state := []string{"degraded", "mtu", "one-way"}[i%3]
		c.state[[3]int{a, b, 0}] = state
		if state != "one-way" {
			c.state[[3]int{b, a, 0}] = state
		}
	}
	c.state[[3]int{0, 2, 0}], c.state[[3]int{2, 0, 0}] = "mtu", "mtu"
}

// remember fills the history with an hour, and the ring with events.
func (c *Cluster) remember() {
	for i := range 360 {
		at := c.now.Add(time.Duration(i-360) * 10 * time.Second)
		var samples []history.Sample
		for j := range c.names[1:] {
			x := float64(i) / 360
			rtt := 0.0004 * (1 + 0.2*math.Sin(9*x+float64(j)) + 0.1*c.random.Float64())
			loss := 0.0
			if i > 150 && i < 190 {
				rtt, loss = rtt*3, 0.1+0.1*c.random.Float64()
			}
			probe := history.Probe{RTT50: rtt, RTT99: rtt * (1.5 + c.random.Float64()), Loss: loss}
			samples = append(samples, history.Sample{
				Peer: c.key(j + 1), Received: 4e6 * (1 + math.Sin(20*x)) * (0.8 + 0.4*c.random.Float64()), Sent: 9e5 * (1 + 0.3*c.random.Float64()),
				Handshake: math.Mod(float64(i)*10, 120), Paths: opt.Dual[history.Probe]{V4: opt.Some(probe), V6: opt.Some(probe)},
			})
		}
		c.samples.Add(at, samples)
	}
	event := func(ago time.Duration, k history.Kind, object, text string) {
		c.Events.Add(history.Event{At: c.now.Add(-ago), Kind: k, Object: object, Text: text})
	}
	event(59*time.Minute, history.Ready, "node", fmt.Sprintf("the data path is in place; peers: %d", len(c.names)-2))
	event(41*time.Minute, history.PeerJoined, c.names[len(c.names)-1], "joined: its lease is a peer now")
	event(33*time.Minute, history.Repaired, "routes", "add 10.244.0.0/16 through the tunnel: it was not as planned")
	event(31*time.Minute, history.Path, c.names[1], "IPv4 path: degraded, was up: 3 of 20 probes were lost")
	event(28*time.Minute, history.Path, c.names[1], "IPv4 path: up, was degraded")
	event(12*time.Minute, history.Guard, "ipv4 out", "caught 18 packets with overlay addresses in plaintext")
}

// Set gives a path in IPv4 a state.
func (c *Cluster) Set(from, to int, state string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state[[3]int{from, to, 0}] = state
}

// stateOf returns the state of a path in IPv4; "" is up.
func (c *Cluster) stateOf(from, to int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state[[3]int{from, to, 0}]
}

func (c *Cluster) key(i int) string { return fmt.Sprintf("%043d=", i) }

func prefixes(i int) opt.Dual[netip.Prefix] {
	v4 := netip.AddrFrom4([4]byte{10, 244, byte(i + 1), 0})
	v6 := netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x44, 7: byte(i + 1)})
	return opt.Dual[netip.Prefix]{V4: opt.Some(netip.PrefixFrom(v4, 24)), V6: opt.Some(netip.PrefixFrom(v6, 64))}
}

// Report returns the report of a node. The counters of traffic rise with the time since the
// cluster was made.
func (c *Cluster) Report(i int, now time.Time) node.Report {
	c.mu.Lock()
	defer c.mu.Unlock()
	rep := node.Report{
		APIVersion: 1, Version: "v1.0.0", Node: c.names[i], Ready: true, Interface: "loden0", PublicKey: c.key(i), Port: 51820, MTU: 1420,
		Engine:   node.EngineReport{Kind: "loden", Reason: "the kernel has no WireGuard"},
		Firewall: node.FirewallReport{Kind: "nftables", Reason: "nft is installed", Guard: "enforce", Clear: []node.GuardCounter{{Family: "ipv4", Direction: "out"}}},
		Store:    node.StoreReport{Up: true, Since: c.now.Add(-time.Hour), Revision: 4711, Snapshot: now},
		Networks: opt.Dual[netip.Prefix]{V4: opt.Some(netip.MustParsePrefix("10.244.0.0/16")), V6: opt.Some(netip.MustParsePrefix("fd44::/48"))},
		Subnets:  prefixes(i), Uplinks: opt.Dual[string]{V4: opt.Some("eth0")},
		Endpoints: opt.Dual[netip.AddrPort]{V4: opt.Some(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 51820))},
		Problems:  []subnet.Problem{}, Peers: []node.PeerReport{},
	}
	for j := range c.names {
		if i != j {
			rep.Peers = append(rep.Peers, c.peer(i, j, now))
		}
	}
	return rep
}

func (c *Cluster) peer(i, j int, now time.Time) node.PeerReport {
	passed := now.Sub(c.now).Seconds()
	traffic := c.weight[[2]int{min(i, j), max(i, j)}] * passed
	p := node.PeerReport{
		Node: c.names[j], PublicKey: c.key(j), Endpoint: fmt.Sprintf("192.0.2.%d:51820", j+1), Subnets: prefixes(j),
		Handshake: now.Add(-time.Duration(10+(i*7+j*13)%110) * time.Second), Received: int64(0.7 * traffic), Sent: int64(0.3 * traffic), State: "up",
	}
	for f, name := range []string{"ipv4", "ipv6"} {
		path := node.PathReport{Family: name, State: "up", Since: c.now.Add(-50 * time.Minute), RTT50: 0.0003 * float64(1+(i*31+j*17)%9), MTU: 1420}
		path.RTT99 = 2 * path.RTT50
		if state := c.state[[3]int{i, j, f}]; state != "" && state != "up" {
			path.State, path.Since = state, c.now.Add(-4*time.Minute)
			fault(&path, p.Node)
			p.State = state
		}
		p.Paths = append(p.Paths, path)
	}
	return p
}

// fault gives a path the reason, the remedy and the numbers of its state.
func fault(p *node.PathReport, peer string) {
	switch p.State {
	case "down":
		p.Reason, p.Remedy = "no probe is answered and no handshake succeeds", "look whether the node runs, and open UDP port 51820: loden why . "+peer
		p.RTT50, p.RTT99, p.Loss, p.MTU = 0, 0, 1, 0
	case "mtu":
		p.Reason, p.Remedy = "packets of more than 1340 bytes are lost", "lower Backend.MTU to 1340, or let ICMP through"
		p.MTU = 1340
	case "degraded":
		p.Reason, p.Loss = "3 of 20 probes were lost", 0.15
	case "one-way":
		p.Reason, p.Remedy = "we hear the peer, and it does not hear us", "open UDP port 51820 towards "+peer
		p.RTT50, p.RTT99, p.Loss = 0, 0, 1
	}
}

// Matrix returns the views of all nodes. A node that is away gives none.
func (c *Cluster) Matrix(now time.Time) node.Matrix {
	m := node.Matrix{APIVersion: 1, At: now, Nodes: c.names}
	for i, name := range c.names {
		row := node.MatrixRow{Node: name, At: now}
		if c.stateOf(0, i) == "down" {
			row.Error = "no answer within 2s"
		} else {
			for _, p := range c.Report(i, now).Peers {
				row.Peers = append(row.Peers, node.MatrixPeer{Node: p.Node, State: p.State, Paths: p.Paths})
			}
		}
		m.Rows = append(m.Rows, row)
	}
	return m
}
