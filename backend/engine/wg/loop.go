package wg

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/peer"
)

// ownMessages recognizes datagrams of this device among the packets from its TUN device: the
// endpoint of a peer is routed into the interface. Such a packet is dropped the first time that it
// comes back, and the endpoint is checked, after which no more is sent to it: see checkSources.
//
// A pod may run WireGuard with the same port number, so the port proves nothing: the message must
// carry an index of a keypair or handshake of this device, and go to that peer's endpoint.
type ownMessages struct {
	device  *Device
	foreign [8]foreignFlow // flows that were looked at and are not this device's
	next    int
}

// foreignFlow is a flow of transport messages of another WireGuard device.
type foreignFlow struct {
	to    netip.AddrPort
	index uint32
}

// of returns the peer that the message in an IP packet was sent to by this device, or nil for any
// other packet.
func (o *ownMessages) of(pkt []byte, via *member) *peer.Peer {
	udp := udpHeader(pkt)
	if len(udp) < 16 || binary.BigEndian.Uint16(udp) != uint16(o.device.boundPort.Load()) {
		return nil
	}
	index := binary.LittleEndian.Uint32(udp[12:])
	switch binary.LittleEndian.Uint32(udp[8:]) {
	case noise.TypeInitiation, noise.TypeResponse:
		return o.device.local.IndexOwner(index)
	case noise.TypeTransport:
		return o.transport(foreignFlow{netip.AddrPortFrom(destination(pkt), binary.BigEndian.Uint16(udp[2:])), index}, via)
	}
	return nil
}

// transport returns the peer with that endpoint and a keypair with that index at the other side.
func (o *ownMessages) transport(f foreignFlow, via *member) *peer.Peer {
	if via.SendsWith(f.to, f.index) {
		return &via.Peer
	}
	for _, known := range o.foreign {
		if known == f {
			return nil
		}
	}
	o.device.mu.RLock()
	defer o.device.mu.RUnlock()
	for _, m := range o.device.peers {
		if m.SendsWith(f.to, f.index) {
			return &m.Peer
		}
	}
	o.foreign[o.next] = f
	o.next = (o.next + 1) % len(o.foreign)
	return nil
}

// udpHeader returns the UDP header of an IP packet and what follows, or nil for another packet and
// for a fragment that is not the first.
func udpHeader(pkt []byte) []byte {
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4 && pkt[9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(pkt[6:])&0x1fff == 0:
		if size := int(pkt[0]&15) * 4; size >= 20 && size <= len(pkt) {
			return pkt[size:]
		}
	case len(pkt) >= 48 && pkt[0]>>4 == 6 && pkt[6] == unix.IPPROTO_UDP:
		return pkt[40:]
	case len(pkt) >= 56 && pkt[0]>>4 == 6 && pkt[6] == unix.IPPROTO_FRAGMENT && pkt[40] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(pkt[42:])&^7 == 0:
		return pkt[48:]
	}
	return nil
}
