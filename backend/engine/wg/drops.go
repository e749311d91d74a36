package wg

import (
	"maps"
	"sync/atomic"
)

// Every packet and message that the device drops is counted by its reason. A path that drops and
// does not count is a defect: an operator must be able to see where packets end.

// counters count what is dropped, and a few events for tests.
type counters struct {
	// Packets from the TUN device.
	malformed  atomic.Uint64 // the virtio header is missing or contradicts the packet
	unroutable atomic.Uint64 // for no peer, or for a peer without an endpoint
	tooBig     atomic.Uint64 // larger than the interface's MTU, and not to be fragmented
	looped     atomic.Uint64 // the peer's endpoint is routed into this interface
	exhausted  atomic.Uint64 // the keypair has no message counters left
	noEndpoint atomic.Uint64 // the peer lost its endpoint before the message was sent
	noSocket   atomic.Uint64 // datagrams without a socket: the interface is down, or the family is missing
	unsent     atomic.Uint64 // datagrams that the kernel did not take: no route, a firewall

	// Datagrams from the sockets.
	notWireGuard atomic.Uint64 // of no type or size of WireGuard
	rejected     atomic.Uint64 // handshake messages: forged, replayed, too many
	queueFull    atomic.Uint64 // handshake messages beyond the queue of the handshake worker
	undecoded    atomic.Uint64 // transport messages without a keypair or authenticity
	replayed     atomic.Uint64 // transport messages
	misrouted    atomic.Uint64 // inner packets from an address that is not the peer's, or malformed
	tunRefused   atomic.Uint64 // packets that the interface did not take: it is down

	// Of sockets that are closed by now.
	sendFull    atomic.Uint64 // datagrams that found the send buffer full
	receiveFull atomic.Uint64 // datagrams that found the receive buffer full

	congested atomic.Uint64 // inner packets without ECN whose outer header was marked: delivered without the mark
	cookies   atomic.Uint64 // sent
	submitted atomic.Uint64 // batches that a worker pool took, or would have taken
}

// Status is what an operator may see of a running device.
type Status struct {
	// Drops is the number of dropped packets and messages by reason, since the device was made. A
	// reason without drops is missing.
	Drops map[string]uint64 `json:"drops,omitempty"`
	// Loops is the number of peers whose endpoint is routed into the interface itself.
	Loops int `json:"loops,omitempty"`
	// Unmarked is the number of inner packets without ECN that were delivered although their outer
	// header carried a congestion mark.
	Unmarked uint64 `json:"unmarked,omitempty"`
	// TrainsRefused is the number of trains that the kernel refused because their datagrams were larger
	// than the MTU of the path. The datagrams were sent singly and were not dropped.
	TrainsRefused uint64 `json:"trainsRefused,omitempty"`
	// Offloads is "on", "off" (by setting) or "refused" (by the kernel), for tun-rx, tun-tx, udp-rx
	// and udp-tx.
	Offloads map[string]string `json:"offloads,omitempty"`
}

// Status returns the present status. It does not wait for the data path.
func (d *Device) Status() Status {
	drops := d.drops()
	maps.DeleteFunc(drops, func(_ string, n uint64) bool { return n == 0 })
	return Status{
		Drops: drops, Unmarked: d.counters.congested.Load(), Loops: d.Loops(), TrainsRefused: d.trainsRefused(), Offloads: d.offloadStates(),
	}
}

// drops returns the number of drops for each reason that there is.
func (d *Device) drops() map[string]uint64 {
	staged := d.local.StagedDrops()
	sendFull, receiveFull := d.socketDrops()
	c := &d.counters
	return map[string]uint64{
		"malformed-packet":       c.malformed.Load(),
		"no-peer":                c.unroutable.Load(),
		"too-big":                c.tooBig.Load(),
		"endpoint-in-tunnel":     c.looped.Load(),
		"keypair-exhausted":      c.exhausted.Load(),
		"no-endpoint":            c.noEndpoint.Load(),
		"no-socket":              c.noSocket.Load(),
		"staged-overflow":        staged.Overflow,
		"staged-expired":         staged.Expired,
		"no-key":                 staged.Keyless,
		"not-wireguard":          c.notWireGuard.Load(),
		"handshake-rejected":     c.rejected.Load(),
		"handshake-queue-full":   c.queueFull.Load(),
		"not-decrypted":          c.undecoded.Load(),
		"replayed":               c.replayed.Load(),
		"wrong-source":           c.misrouted.Load(),
		"send-refused":           c.unsent.Load(),
		"interface-refused":      c.tunRefused.Load(),
		"udp-send-queue-full":    sendFull,
		"udp-receive-queue-full": receiveFull,
	}
}

// socketDrops returns how many datagrams the sockets dropped for want of room in their send and
// receive buffers, sockets that are closed by now included.
func (d *Device) socketDrops() (sendFull, receiveFull uint64) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	sendFull, receiveFull = d.counters.sendFull.Load(), d.counters.receiveFull.Load()
	var open []socket
	if b := d.sockets.Load(); b != nil {
		open = b.all()
	}
	for _, f := range d.former {
		open = append(open, f.all()...)
	}
	for _, s := range open {
		full, lost := bufferDrops(s)
		sendFull, receiveFull = sendFull+full, receiveFull+lost
	}
	return sendFull, receiveFull
}

// bufferDrops returns the drops of a socket for want of room in its buffers.
func bufferDrops(s socket) (sendFull, receiveFull uint64) {
	if k, ok := s.(interface{ Drops() (uint64, uint64) }); ok {
		return k.Drops()
	}
	return 0, 0
}
