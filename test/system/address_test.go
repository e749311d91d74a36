package system_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// TestNewAddressIsPublishedWithinASecond is fault C2: a node gets another address, as by DHCP,
// under 1,000 packets a second in each direction. Its connection to etcd has lost its
// address, too. The node publishes the new address at once, and its peer follows although
// the session with the old address is fresh.
func TestNewAddressIsPublishedWithinASecond(t *testing.T) {
	l := upLab(t, lab.Options{Nodes: 2, Pods: 1, Engines: []string{"wireguard-go", "loden"}})
	verdict(t, l)
	for i, n := range l.Nodes {
		now := netip.AddrFrom4([4]byte{172, 20, 9, byte(i + 1)})
		end := traffic(t, l.Nodes[0].Pods[0], l.Nodes[1].Pods[0])
		was := n.Underlay.V4.Or(netip.Addr{})
		begun := time.Now()
		if _, err := n.Output("sh", "-c", fmt.Sprintf("ip addr del %s/16 dev eth0; ip addr add %s/16 dev eth0", was, now)); err != nil {
			t.Fatal(err)
		}
		sandboxtest.Until(t, 30*time.Second, "the new address in etcd", func() error {
			leases, err := l.Store.Output(l.Program("etcdctl"), "--endpoints", l.Store.Endpoint(), "get", "--prefix", "/coreos.com/network/subnets/")
			if err == nil && !strings.Contains(leases, now.String()) {
				err = errors.New(leases)
			}
			return err
		})
		published := time.Since(begun)
		sandboxtest.Until(t, 30*time.Second, "the peer to use the new address", func() error {
			endpoints, err := l.Nodes[1-i].Output("wg", "show", "loden0", "endpoints")
			if err == nil && !strings.Contains(endpoints, now.String()) {
				err = errors.New(endpoints)
			}
			return err
		})
		t.Logf("%s: published after %v, used by the peer after %v", n.Name, published, time.Since(begun))
		if published > 3*time.Second { // a second, and the start of etcdctl on a loaded machine
			t.Errorf("%s: the new address was published after %v", n.Name, published)
		}
		if gap := lost(t, end()); gap > 3*time.Second {
			t.Errorf("%s: %v without a packet", n.Name, gap)
		}
		n.Underlay = opt.Dual[netip.Addr]{V4: opt.Some(now)}
	}
}
