package firewall_test

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/test/sandbox"
)

// storePort is the port of the etcd in deploy, neighbourPort another port of the same hosts.
const storePort, neighbourPort = 22379, 22380

// serve takes TCP connections on both ports of a host until the end of the test.
func serve(t *testing.T, h *sandbox.Host) {
	t.Helper()
	for _, port := range []int{storePort, neighbourPort} {
		var l net.Listener
		do(t, h, func() (err error) {
			var lc net.ListenConfig
			l, err = lc.Listen(t.Context(), "tcp", fmt.Sprintf(":%d", port))
			return err
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				conn.Close()
			}
		}()
		t.Cleanup(func() { l.Close(); <-done })
	}
}

// connects reports whether a host can open a connection.
func connects(h *sandbox.Host, to string, port int, wait time.Duration) bool {
	return h.Do(func() error {
		conn, err := (&net.Dialer{Timeout: wait}).Dial("tcp", net.JoinHostPort(to, fmt.Sprint(port)))
		if err != nil {
			return err
		}
		return conn.Close()
	}) == nil
}

// TestPodsReachNoClosedPortOfANode: the etcd of Loden's own listens at every address of its node. A pod
// that reaches it needs only a certificate to move the traffic of other nodes.
func TestPodsReachNoClosedPortOfANode(t *testing.T) {
	onEachWorld(t, func(t *testing.T, b bed, w world) {
		for _, h := range []*sandbox.Host{w.pod, w.node, w.outside, w.far} {
			serve(t, h)
		}
		// A service, translated by kube-proxy, and hosts numbered from the overlay's range.
		on(t, w.node, "iptables-nft -t nat -A PREROUTING -d 10.96.0.7 -p tcp --dport 22379 -j DNAT --to-destination 192.0.2.1; ip addr add 10.244.250.1/24 dev eth0")
		on(t, w.outside, "ip addr add 10.244.250.9/24 dev eth0")
		p := policy()
		p.Except = set.NewPrefixes(prefix("10.244.250.0/24"))
		open := p.Config("loden0", scopes())
		p.Ports = set.NewPorts(storePort, 9)
		closed := p.Config("loden0", scopes())
		f := w.install(t, b, open)
		for _, c := range []firewall.Config{open, closed} {
			do(t, w.node, func() error { return makeSo(t.Context(), f, c) })
			want := func(name string, h *sandbox.Host, to string, port int, want bool) {
				t.Helper()
				wait := 2 * time.Second
				if !want {
					wait = 100 * time.Millisecond
				}
				if got := connects(h, to, port, wait); got != want {
					t.Errorf("ports %q: %s, %s to port %d: %v, want %v", c.Guard.Ports, name, to, port, got, want)
				}
			}
			pods := c.Guard.Ports.IsZero() // whether pods get through
			for _, family := range opt.Families() {
				a := addressesOf(family)
				for _, to := range []string{a.uplink, a.bridge, a.outside} {
					want("a pod", w.pod, to, storePort, pods)
				}
				want("a pod of another node", w.far, a.tunnel, storePort, pods)
				want("a pod of another node", w.far, a.bridge, storePort, pods)
				want("another port", w.pod, a.uplink, neighbourPort, true)
				want("another port", w.pod, a.outside, neighbourPort, true)
				want("the pods' own port", w.pod, a.far, storePort, true)
				want("the pods' own port", w.far, a.pod, storePort, true)
				want("the node", w.node, a.outside, storePort, true)
				want("the node to itself", w.node, a.uplink, storePort, true)
				want("another node", w.outside, a.uplink, storePort, true)
			}
			want("a pod to the service", w.pod, "10.96.0.7", storePort, pods)
			want("a pod to the tunnel's address", w.pod, addressesOf(opt.V4).tunnel, storePort, pods)
			want("a host numbered from the overlay", w.outside, "10.244.250.1", storePort, true)
		}
		if count(t, w, f, closed, opt.V4, false) == 0 {
			t.Error("the refused packets are not counted")
		}
		warn := closed
		warn.Guard.Mode = firewall.Warn
		do(t, w.node, func() error { return makeSo(t.Context(), f, warn) })
		if !connects(w.pod, addressesOf(opt.V4).uplink, storePort, 2*time.Second) {
			t.Error("a guard that only warns refuses the connection")
		}
	})
}
