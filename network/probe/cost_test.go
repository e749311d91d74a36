package probe

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// echo answers a question as the service of a node does, without the rest of a service.
func (m *mesh) echo(n *meshNode, from netip.Addr, datagram []byte) {
	content, id, err := n.keys.open(datagram)
	if err != nil {
		return
	}
	if q, err := decode(content); err != nil || q.kind != ask {
		return
	}
	answer, _ := n.keys.seal(message{kind: reply, re: id, arrived: len(datagram), sent: time.Now()}.encode(len(datagram) - sealSize))
	to := n.addrs.Of(opt.FamilyOf(from)).Or(netip.Addr{})
	m.count(to, from, int64(len(answer)+headers(opt.FamilyOf(from))))
	m.ends[from].arrivals <- arrival{from: to, data: answer}
}

// TestCostOfAnIdleNode prints what the service of a node costs while no path changes. The
// peers answer in this process: a node of a cluster answers as many questions as it asks, so the
// sum of both sides here is the cost of a node there.
func TestCostOfAnIdleNode(t *testing.T) {
	const warmUp, measured = 40 * time.Minute, 10 * time.Minute
	for peers, limit := range map[int]float64{3: 2, 64: 60, 1000: 20} {
		t.Run(fmt.Sprint(peers), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMesh(t)
				m.addMany(t, peers)
				n := m.run(0)
				later(warmUp)
				before, packets := processorTime(t), m.packets()
				later(measured)
				used := processorTime(t) - before
				rate := 2 * float64(m.packets()-packets) / measured.Seconds()
				t.Logf("%d dual-stack peers: %.1f packets/s sent (questions and answers), %.3f %% of a core", peers, rate, 100*used.Seconds()/measured.Seconds())
				if rate > limit {
					t.Errorf("more than %v packets/s", limit)
				}
				states := map[string]int{}
				for i := range peers {
					for _, f := range opt.Families() {
						states[m.state(0, i+1, f).State]++
					}
				}
				if states[Up] != 2*peers {
					t.Errorf("states of the paths: %v", states)
				}
				n.stop()
			})
		})
	}
}

// processorTime returns the time that this process has used.
func processorTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// packets returns the number of datagrams that the services sent.
func (m *mesh) packets() (n int) {
	m.with(func() {
		for _, sent := range m.sent {
			n += sent
		}
	})
	return n
}

// addMany adds a node and its peers, which echo.
func (m *mesh) addMany(t testing.TB, peers int) {
	t.Helper()
	m.add("a")
	o := m.options(0)
	for i := range peers {
		n := m.newNode(fmt.Sprint("n", i), i+2)
		m.with(func() { m.nodes = append(m.nodes, n) })
		shared, err := o.Shared(n.key)
		if err != nil {
			t.Fatal(err)
		}
		keys := must(newSeals(shared, n.key, o.Public))(t)
		n.keys = &keys
	}
}
