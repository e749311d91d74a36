package backend_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config/opt"
)

// device returns the node's TUN device as the kernel describes it.
func (n *node) device() (device *netlink.Tuntap) {
	n.t.Helper()
	if err := n.Do(func() error {
		link, err := netlink.LinkByName(iface)
		if err == nil {
			device = link.(*netlink.Tuntap)
		}
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	return device
}

// queues returns how many queues of the node's TUN device are read.
func (n *node) queues() int {
	n.t.Helper()
	if d := n.device(); d.Flags&netlink.TUNTAP_MULTI_QUEUE != 0 {
		return d.Queues
	}
	return 1 // the kernel gives no number
}

// again configures the engine that runs now by a new process, which keeps its kind, and
// reaches b.
func (n *node) again(b *node) {
	n.t.Helper()
	n.close()
	n.start("auto")
	n.apply(opt.Some(n.config(b.peer(opt.V4))))
	n.reaches(b)
}

func TestDeviceIsTakenOverHoweverManyQueuesItHas(t *testing.T) {
	for _, way := range []struct {
		had    int
		kind   engine.Kind
		wanted int
		want   int
	}{
		{1, engine.Loden, 4, 1},
		{4, engine.Loden, 4, 4},
		{4, engine.Loden, 1, 1},
		{4, engine.WireGuardGo, 4, 1},
	} {
		for _, crash := range []bool{true, false} {
			if !crash && way.kind == engine.Loden {
				continue // TestHandOverLosesNoPacket
			}
			t.Run(fmt.Sprintf("%d queues by %s with %d, crash %t", way.had, way.kind, way.wanted, crash), func(t *testing.T) {
				a, b, first := relayedWithQueues(t, engine.Loden, way.had)
				before := a.device().Index
				if crash {
					_ = first.Process.Kill()
					<-first.done
				}
				next := a.relayWithQueues(way.kind, way.wanted)
				next.says(t, started, 1)
				if got := a.queues(); got != way.want || a.device().Index != before {
					t.Errorf("%d queues, want %d; interface %d, was %d", got, way.want, a.device().Index, before)
				}
				a.again(b)
				_ = next.Process.Kill()
				if crash {
					<-next.done
					next = a.relayWithQueues(engine.Loden, way.had)
					next.says(t, started, 1)
				} else {
					first.says(t, started, 2)
				}
				a.again(b)
				if got := a.queues(); got != way.had {
					t.Errorf("%d queues, want %d", got, way.had)
				}
			})
		}
	}
}

func TestEngineThatKnowsNoQueuesIsRefusedSeveral(t *testing.T) {
	a, b, _ := relayedWithQueues(t, engine.Loden, 4)
	for _, kind := range []string{"loden", "wireguard-go"} {
		old, err := net.Dial("unixpacket", engine.ControlPath(a.Path(runDir), iface))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(old, `{"version":1,"do":"give","engine":%q,"state":1}`, kind); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 4096)
		n, err := old.Read(answer)
		if err != nil || !strings.Contains(string(answer[:n]), "several queues") {
			t.Errorf("answered %q, %v", answer[:n], err)
		}
		_ = old.Close()
		a.reaches(b)
	}
}
