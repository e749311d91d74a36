package etcd_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/subnet/etcd"
)

// kubeadm adds a control plane's etcd as a learner first, and the list of endpoints names
// all members.
func TestLearnerAmongTheEndpointsIsPassedOver(t *testing.T) {
	t.Parallel()
	leader := own(t)
	c := plain(t, leader.Client)
	ready(t, c)
	learner, err := newServer("learner", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the learner to be added", func() bool {
		_, err := c.MemberAddAsLearner(t.Context(), []string{learner.peer})
		return err == nil
	})
	learner.cluster = leader.cluster + "," + learner.cluster
	learner.flags = []string{"--initial-cluster-state", "existing"}
	learner.start(t)
	far := plain(t, learner.Client)
	eventually(t, "the learner to refuse", func() bool {
		_, err := far.Get(t.Context(), "x")
		return err != nil && strings.Contains(err.Error(), "learner")
	})
	n := network(t, dualDoc)
	put(t, c, "config", dualDoc)
	for i := range 8 { // the client takes the endpoints in turn, from a random endpoint on
		r := open(t, nil, learner.Client, leader.Client)
		if _, err := r.Network(t.Context()); err != nil {
			t.Fatalf("try %d: %v", i, err)
		}
		claim, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: want("a", byte(i+1))})
		if err != nil {
			t.Fatalf("try %d: %v", i, err)
		}
		w, done := follow(t, r), keep(t, claim)
		eventually(t, "the list", func() bool { return names(w.last()) == "a" })
		if err := claim.Update(t.Context(), want("a", byte(i+100))); err != nil {
			t.Fatal(err)
		}
		eventually(t, "an event", func() bool { return w.last().Leases.Slice()[0].Endpoints == want("a", byte(i+100)).Endpoints })
		select {
		case err := <-done:
			t.Errorf("keep ended: %v", err)
		default:
		}
	}
	alone := open(t, func(o *etcd.Options) { o.RPCTimeout = 2 * time.Second }, learner.Client)
	if _, err := alone.Snapshot(t.Context()); !errors.Is(err, etcd.ErrUnavailable) || !strings.Contains(err.Error(), "voting members") {
		t.Errorf("a learner alone: got %v, want ErrUnavailable and the remedy", err)
	}
}

// A full database answers reads and refuses writes.
func TestFullDatabaseIsARefusalWithItsRemedy(t *testing.T) {
	t.Parallel()
	server := own(t, "--quota-backend-bytes", "1048576")
	c := plain(t, server.Client)
	ready(t, c)
	put(t, c, "config", v4Doc)
	r := open(t, nil, server.Client)
	n := network(t, v4Doc)
	claim := acquire(t, r, n, want("a", 1), noPrefix)
	for i := 0; ; i++ {
		if _, err := c.Put(t.Context(), fmt.Sprintf("/junk/%d", i), strings.Repeat("x", 100_000)); err != nil {
			break
		}
	}
	err := claim.Update(t.Context(), want("a", 99))
	if !errors.Is(err, etcd.ErrRefused) || errors.Is(err, etcd.ErrUnavailable) || !strings.Contains(err.Error(), "alarm disarm") {
		t.Fatalf("got %v, want ErrRefused with the remedy", err)
	}
	if claim.Lease().Endpoints != want("a", 1).Endpoints {
		t.Error("the claim says what the store does not hold")
	}
	if s := r.Status(); !s.Connected || !strings.Contains(s.LastError, "database is full") {
		t.Errorf("status %+v", s)
	}
	if s, err := r.Snapshot(t.Context()); err != nil || s.Leases.Len() != 1 {
		t.Errorf("reads: %v, %v", s, err)
	}
	// A node whose lease is right writes no key, so it starts.
	if _, err := r.Acquire(t.Context(), etcd.Want{Network: n, Lease: want("a", 1)}); err != nil {
		t.Errorf("restart: %v", err)
	}
	resp, err := c.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Delete(t.Context(), "/junk/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compact(t.Context(), resp.Header.Revision+1, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Defragment(t.Context(), server.Client); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AlarmDisarm(t.Context(), &clientv3.AlarmMember{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "writes again", func() bool { return claim.Update(t.Context(), want("a", 99)) == nil })
}

func TestRotatedPasswordIsARefusalWithItsRemedy(t *testing.T) {
	t.Parallel()
	server := own(t)
	c := plain(t, server.Client)
	ready(t, c)
	rights(t, c, prefix(t))
	r := open(t, func(o *etcd.Options) { o.Username, o.Password = "loden", config.Secret("yesterday's") }, server.Client)
	_, err := r.Snapshot(within(t))
	if !errors.Is(err, etcd.ErrRefused) || errors.Is(err, etcd.ErrUnavailable) || !strings.Contains(err.Error(), "LODEN_ETCD_PASSWORD") {
		t.Fatalf("got %v, want ErrRefused with the remedy", err)
	}
	if strings.Contains(err.Error(), "yesterday") {
		t.Error("the error prints the password")
	}
}
