package interop_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
)

// badWire describes the fate of the datagrams that reach a machine.
type badWire struct {
	loss, late float64 // shares of datagrams that are lost, and that later datagrams overtake
}

// delay is how late a late datagram is: long enough for later datagrams to overtake it.
const delay = 2 * time.Millisecond

// queueNumber is the number of the NFQUEUE on each machine: queues are per namespace.
const queueNumber = 7

// Messages and attributes of <linux/netfilter/nfnetlink_queue.h>.
const (
	queueSubsystem = 3 << 8
	typeVerdict    = queueSubsystem | 1
	typeConfig     = queueSubsystem | 2
	configCommand  = 1 // struct nfqnl_msg_config_cmd
	configParams   = 2 // struct nfqnl_msg_config_params
	configLength   = 3
	bind           = 1
	packetHeader   = 1 // of a packet: its number comes first
	verdictHeader  = 2
	drop, accept   = 0, 1
)

// spoil lets the queue of a machine decide over the datagrams for its tunnel, until the test
// ends. This kernel may have no netem; iptables and NFQUEUE it has.
func spoil(t *testing.T, m *machine, wire badWire) {
	t.Helper()
	var conn *netlink.Conn
	err := m.host.Do(func() (err error) {
		conn, err = netlink.Dial(12, nil) // NETLINK_NETFILTER
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadBuffer(8 << 20) // a refusal shows as loss
	for _, a := range []netlink.Attribute{
		{Type: configCommand, Data: []byte{bind, 0, 0, 0}},
		{Type: configParams, Data: []byte{0, 0, 0, 0, 1}}, // the number alone, not the packet
		{Type: configLength, Data: []byte{0, 0, 0x40, 0}},
	} {
		if _, err := conn.Execute(queueMessage(t, typeConfig, netlink.Acknowledge, a)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tables := range []string{"iptables", "ip6tables"} {
		m.output(t, tables, "-w", "-A", "INPUT", "-p", "udp", "--dport", "51820", "-j", "NFQUEUE", "--queue-num", fmt.Sprint(queueNumber))
	}
	var decide sync.WaitGroup
	var lost, late, all int
	decide.Go(func() { lost, late, all = wire.decide(t, conn) })
	t.Cleanup(func() {
		_ = conn.Close()
		decide.Wait()
		t.Logf("machine %d: of %d datagrams %d were lost and %d late", m.n, all, lost, late)
		if late == 0 || (lost == 0 && wire.loss >= 0.01) {
			t.Error("the wire was not bad")
		}
	})
}

func queueMessage(t *testing.T, kind int, flags netlink.HeaderFlags, a netlink.Attribute) netlink.Message {
	b, err := netlink.MarshalAttributes([]netlink.Attribute{a})
	if err != nil {
		t.Error(err)
	}
	head := []byte{0, 0, 0, queueNumber} // family, version, number
	return netlink.Message{Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request | flags}, Data: append(head, b...)}
}

// decide passes, drops or delays packets until the connection is closed, and counts them.
func (w badWire) decide(t *testing.T, conn *netlink.Conn) (lost, late, all int) {
	dice := rand.New(rand.NewPCG(1, 2))
	var waiting sync.WaitGroup
	defer waiting.Wait()
	for {
		messages, err := conn.Receive()
		if err != nil && len(messages) == 0 {
			return lost, late, all
		}
		for _, m := range messages {
			id, ok := packetID(m.Data)
			if !ok {
				continue
			}
			all++
			switch x := dice.Float64(); {
			case x < w.loss:
				lost++
				say(t, conn, id, drop)
			case x < w.loss+w.late:
				late++
				waiting.Add(1)
				time.AfterFunc(delay, func() {
					defer waiting.Done()
					say(t, conn, id, accept)
				})
			default:
				say(t, conn, id, accept)
			}
		}
	}
}

// say tells the kernel the verdict on a packet: accept or drop.
func say(t *testing.T, conn *netlink.Conn, id []byte, verdict uint32) {
	b := append(binary.BigEndian.AppendUint32(nil, verdict), id...)
	_, _ = conn.Send(queueMessage(t, typeVerdict, 0, netlink.Attribute{Type: verdictHeader, Data: b})) // a failure is a loss
}

// packetID returns a queued packet's number, as it came.
func packetID(data []byte) ([]byte, bool) {
	if len(data) < 4 {
		return nil, false
	}
	attributes, err := netlink.UnmarshalAttributes(data[4:])
	if err != nil {
		return nil, false
	}
	for _, a := range attributes {
		if a.Type == packetHeader && len(a.Data) >= 4 {
			return a.Data[:4], true
		}
	}
	return nil, false
}

func TestBadWiresAreSurvived(t *testing.T) {
	t.Parallel()
	all := others(t)
	if all[0].program != "" { // ours with ours is the same in QEMU, but slow
		all = append(all, ours)
	}
	for _, c := range []struct {
		badWire
		others []engine
	}{
		{badWire{0.001, 0.01}, others(t)},
		{badWire{0.01, 0.05}, others(t)},
		{badWire{0.05, 0.05}, all},
	} {
		for _, other := range c.others {
			for outside, v6 := range families {
				t.Run(fmt.Sprintf("%s over %s, %g %% lost, %g %% late", other.name, outside, 100*c.loss, 100*c.late), func(t *testing.T) {
					t.Parallel()
					p := newPair(t, ours, other, v6)
					spoil(t, p.a, c.badWire)
					spoil(t, p.b, c.badWire)
					const size = 1 << 20
					transfer(t, p.a, p.b, false, size)
					transfer(t, p.b, p.a, true, size)
				})
			}
		}
	}
}
