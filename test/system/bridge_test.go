package system_test

import (
	"context"
	"errors"
	"regexp"
	"testing"

	"github.com/loden-net/loden/test/lab"
)

// TestFirstPodsBridgeKeepsItsHardwareAddress attaches the first pod of a node while an address
// of the uplink comes and goes, which costs the daemon a pass each time. The bridge plugin
// fixes the bridge's hardware address when it sets the gateway address. A daemon that was
// faster left the bridge with the hardware address of a pod's link, which changed when that
// pod went: other pods then lost their gateway until their neighbour entry ran out.
func TestFirstPodsBridgeKeepsItsHardwareAddress(t *testing.T) {
	l := storeLab(t, lab.Options{Nodes: 1})
	n := l.Nodes[0]
	startAndWait(t, n)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		const changes = "for i in 1 2 3 4 5; do ip addr add 198.18.9.9/32 dev eth1; ip addr del 198.18.9.9/32 dev eth1; done"
		var err error
		for err == nil && ctx.Err() == nil {
			err = n.Run("sh", "-c", changes)
		}
		ended <- err
	}()
	pod, err := n.Attach(t.Context())
	stop()
	if err := errors.Join(err, <-ended); err != nil {
		t.Fatal(err)
	}
	before := hardwareAddress(t, n)
	if err := pod.Detach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := hardwareAddress(t, n); after != before {
		t.Errorf("the bridge had %s, and has %s without its pod", before, after)
	}
}

// hardwareAddress returns the hardware address of the pods' bridge.
func hardwareAddress(t *testing.T, n *lab.Node) string {
	t.Helper()
	out, err := n.Output("ip", "link", "show", "cni0")
	if err != nil {
		t.Fatal(err)
	}
	return regexp.MustCompile(`link/ether \S+`).FindString(out)
}
