package etcd_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// outage is how long etcd stays away in these tests: short by default,
// LODEN_OUTAGE=60s for the long form.
func outage(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("LODEN_OUTAGE")
	if text == "" {
		return 2 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// small cluster of nodes on a common etcd, settled.
func nodes(t *testing.T, n config.Network, change func(*etcd.Options), endpoints ...string) []*node {
	t.Helper()
	var out []*node
	for i, name := range []string{"a", "b", "c", "d", "e"} {
		out = append(out, runNode(t, open(t, change, endpoints...), n, want(name, byte(i+1))))
	}
	settled(t, out)
	return out
}

// settled waits until every node sees every node.
func settled(t *testing.T, all []*node) {
	t.Helper()
	for _, x := range all {
		eventually(t, "node "+x.want.Node+" sees all", func() bool { return x.sees() == "a b c d e" && x.held() != "" })
	}
}

// picture is the leases that all nodes hold.
func picture(all []*node) string {
	var out []string
	for _, x := range all {
		out = append(out, x.want.Node+" "+x.held())
	}
	return strings.Join(out, "\n")
}

// cpu returns the processor time of this process.
func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pass waits for a while in which the nodes must keep their leases.
func pass(t *testing.T, all []*node, d time.Duration) {
	t.Helper()
	before := picture(all)
	until := time.Now().Add(d)
	eventuallyWithin(t, d+patience, "the outage to pass", func() bool {
		for _, x := range all {
			if got := x.sees(); got != "a b c d e" {
				t.Fatalf("node %s sees %q during the outage", x.want.Node, got)
			}
		}
		return time.Now().After(until)
	})
	if after := picture(all); after != before {
		t.Errorf("subnets moved during the outage\nbefore\n%s\nafter\n%s", before, after)
	}
}

// alive proves that nodes follow the store again: a newcomer is seen and its leaving too.
func alive(t *testing.T, all []*node, endpoints ...string) {
	t.Helper()
	r := open(t, nil, endpoints...)
	c := acquire(t, r, all[0].n, want("x", 200), noPrefix)
	for _, x := range all {
		eventually(t, "node "+x.want.Node+" sees a newcomer", func() bool { return x.sees() == "a b c d e x" })
	}
	if err := c.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, x := range all {
		eventually(t, "node "+x.want.Node+" sees it leave", func() bool { return x.sees() == "a b c d e" })
	}
}

// inStore returns "node key" of each lease in the store.
func inStore(t *testing.T, r *etcd.Registry) string {
	t.Helper()
	s, err := r.Snapshot(within(t))
	if err != nil {
		return err.Error()
	}
	by := map[string]string{}
	for l := range s.Leases.All() {
		by[l.Node] = subnet.FormatKey(l.Subnets)
	}
	var out []string
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		out = append(out, name+" "+by[name])
	}
	return strings.Join(out, "\n")
}

func TestEtcdKilledAndBack(t *testing.T) {
	server := own(t)
	all := nodes(t, network(t, dualDoc), func(o *etcd.Options) { o.RPCTimeout = 3 * time.Second }, server.Client)
	before := picture(all)
	server.kill()
	eventually(t, "the loss to be known", func() bool { return !all[0].r.Status().Connected })
	lost := all[0].r.Status()
	if lost.LastError == "" || time.Since(lost.Since) > patience {
		t.Errorf("status %+v", lost)
	}
	busy := cpu(t)
	pass(t, all, outage(t))
	busy = cpu(t) - busy
	// Five nodes, ten watches: a loop without a pause would take a whole processor.
	t.Logf("processor time of 5 nodes in %v without etcd: %v", outage(t), busy)
	if limit := outage(t) / 3; busy > limit {
		t.Errorf("processor time %v in %v, limit %v", busy, outage(t), limit)
	}
	server.start(t)
	r := open(t, nil, server.Client)
	eventually(t, "everything as before", func() bool { return inStore(t, r) == before })
	alive(t, all, server.Client)
	for _, x := range all {
		if x.losses() != 0 {
			t.Errorf("node %s lost its lease %d times", x.want.Node, x.losses())
		}
	}
	if after := picture(all); after != before {
		t.Errorf("subnets moved\nbefore\n%s\nafter\n%s", before, after)
	}
}

func TestEtcdEmptied(t *testing.T) {
	t.Parallel()
	server := own(t)
	all := nodes(t, network(t, dualDoc), nil, server.Client)
	before := picture(all)
	server.kill()
	if err := os.RemoveAll(server.Dir); err != nil {
		t.Fatal(err)
	}
	server.start(t)
	r := open(t, nil, server.Client)
	eventually(t, "every node claims its subnets again", func() bool { return inStore(t, r) == before })
	settled(t, all)
	alive(t, all, server.Client)
	if after := picture(all); after != before {
		t.Errorf("subnets moved\nbefore\n%s\nafter\n%s", before, after)
	}
}

// A backup restored without a new revision is the worst case: it has the same cluster, and
// a watch from a revision that it has not reached stays silent.
func TestEtcdRestoredFromAnOlderBackup(t *testing.T) {
	t.Parallel()
	server := own(t)
	n := network(t, dualDoc)
	early := runNode(t, open(t, nil, server.Client), n, want("a", 1))
	eventually(t, "the first node", func() bool { return early.held() != "" })
	server.kill()
	backup := t.TempDir()
	if out, err := exec.Command("cp", "-a", server.Dir+"/.", backup).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	server.start(t)
	all := []*node{early}
	for i, name := range []string{"b", "c", "d", "e"} {
		all = append(all, runNode(t, open(t, nil, server.Client), n, want(name, byte(i+2))))
	}
	settled(t, all)
	before := picture(all)
	c := plain(t, server.Client)
	for i := range 50 { // heard by every node, so that revisions fall far below the revisions that they know
		put(t, c, "subnets/no-lease", fmt.Sprint(i))
	}
	far := revision(t, c)
	for _, x := range all {
		eventually(t, "node "+x.want.Node+" hears it", func() bool { return x.r.Status().Revision >= far })
	}
	server.kill()
	if err := os.RemoveAll(server.Dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(backup, server.Dir); err != nil {
		t.Fatal(err)
	}
	server.start(t)
	r := open(t, nil, server.Client)
	eventually(t, "every node claims its subnets again", func() bool { return inStore(t, r) == before })
	settled(t, all)
	alive(t, all, server.Client)
	if after := picture(all); after != before {
		t.Errorf("subnets moved\nbefore\n%s\nafter\n%s", before, after)
	}
}

func TestEtcdCompactedWhileNodesAreCutOff(t *testing.T) {
	t.Parallel()
	server := own(t)
	c := plain(t, server.Client)
	ready(t, c)
	way := newProxy(t, server.Client)
	all := nodes(t, network(t, dualDoc), nil, way.url())
	before := picture(all)
	way.setCut(true)
	resp, err := c.Put(t.Context(), prefix(t)+"/config", dualDoc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(t.Context(), resp.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	pass(t, all, time.Second)
	way.setCut(false)
	alive(t, all, server.Client)
	if after := picture(all); after != before {
		t.Errorf("subnets moved\nbefore\n%s\nafter\n%s", before, after)
	}
}

// A member that is stopped (not killed: its connections stay open) or gone takes no lease
// from the nodes.
func TestOneMemberOfThreeStopped(t *testing.T) {
	t.Parallel()
	members := cluster(t)
	urls := []string{members[0].Client, members[1].Client, members[2].Client}
	ready(t, plain(t, urls...))
	all := nodes(t, network(t, dualDoc), func(o *etcd.Options) { o.RPCTimeout = time.Second }, urls...)
	before := picture(all)
	if err := members[1].cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	pass(t, all, outage(t))
	alive(t, all, urls[0], urls[2])
	members[1].kill()
	alive(t, all, urls[0], urls[2])
	if after := picture(all); after != before {
		t.Errorf("subnets moved\nbefore\n%s\nafter\n%s", before, after)
	}
}

// An operator's slip: the guard holds the peers, the nodes are back at once.
func TestEverythingDeletedByHand(t *testing.T) {
	n := network(t, dualDoc)
	all := nodes(t, n, nil)
	before := picture(all)
	c, r := plain(t, shared), open(t, nil)
	if _, err := c.Delete(t.Context(), prefix(t)+"/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "every node claims its subnets again", func() bool { return inStore(t, r) == before })
	pass(t, all, 100*time.Millisecond)
	alive(t, all)
}
