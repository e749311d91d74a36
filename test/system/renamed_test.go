package system_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/loden-net/loden/test/lab"
)

// TestRenamedNodeKeepsItsSubnetsAndLosesNoPacket restarts both nodes under another host
// name (DHCP, cloud-init, a domain suffix) under 1,000 packets a second in each direction.
// Each node knows its lease by its public key.
func TestRenamedNodeKeepsItsSubnetsAndLosesNoPacket(t *testing.T) {
	l := upLab(t, lab.Options{Nodes: 2, Pods: 1, Engines: []string{"wireguard-go", "loden"}})
	verdict(t, l)
	end := traffic(t, l.Nodes[0].Pods[0], l.Nodes[1].Pods[0])
	for _, n := range l.Nodes {
		before, err := n.Env()
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Stop(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		startAndWait(t, n, "--node-name", n.Name+".example.com")
		if after, err := n.Env(); err != nil || after.Subnets != before.Subnets {
			t.Errorf("%s: subnets %v, then %v (%v)", n.Name, before.Subnets, after.Subnets, err)
		}
	}
	nothingLost(t, end())
	list, err := l.Nodes[0].Loden("lease", "list", "--etcd-endpoints", l.Store.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(list, ".example.com"); got != 2 || strings.Count(list, "\n") != 3 {
		t.Errorf("want a lease of each new name and no other:\n%s", list)
	}
	verdict(t, l)
}
