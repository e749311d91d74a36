package wg

import (
	"net/netip"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/peer"
)

// member is a configured peer of the device: the protocol's peer with its allowed IPs and its
// timer.
type member struct {
	peer.Peer
	device  *Device
	allowed []netip.Prefix // guarded by Device.mu
	timer   *time.Timer    // nil: never needed yet. The peer's lock guards it: see SetAlarm
}

func newMember(d *Device, key noise.Key) *member {
	m := &member{device: d}
	m.Init(&d.local, key, m)
	return m
}

// SetAlarm implements peer.Alarm.
func (m *member) SetAlarm(at moment) {
	switch {
	case at == 0 || !m.device.running.Load():
		if m.timer != nil {
			m.timer.Stop()
		}
	case m.timer == nil:
		m.timer = time.AfterFunc(max(0, at-m.device.now()), m.tick)
	default:
		m.timer.Reset(max(0, at-m.device.now()))
	}
}

// tick lets the peer do what is due. It runs on a goroutine of the timer.
func (m *member) tick() {
	if m.device.running.Load() {
		m.device.carryOut(&m.Peer, m.Tick(m.device.time()))
	}
}

// carryOut does the work that a call of a peer left to the device. No lock is held.
func (d *Device) carryOut(p *peer.Peer, a peer.Actions) {
	for _, out := range a.Datagrams {
		if out.To.Loop {
			d.counters.looped.Add(1)
			continue
		}
		sent := d.sendMessage(out)
		if p == nil {
			continue
		}
		p.CountSent(sent.Sent)
		if sent.SourceRefused {
			p.ClearSource()
		}
	}
	if a.Flush {
		d.enqueue(handshakeItem{peer: p})
	}
}
