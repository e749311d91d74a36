// Package state owns the state that a WireGuard device hands over to the next device, and its
// form between two processes of a host. It does not know sockets or devices, or how the text travels.
package state

import (
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/config/opt"
)

// Moment is a time on a device's own clock, which goes on in the next device. Zero is
// "never".
type Moment = time.Duration

// Device is everything of a device but its open files.
type Device struct {
	Now     Moment // when it stopped
	Private noise.Key
	Port    uint16
	Mark    uint32
	Peers   []Peer
}

// Peer is a configured peer, and its handshake state and keypairs while it has any.
type Peer struct {
	Public, Preshared noise.Key
	Keepalive         uint16 // seconds; 0: none
	Endpoint          opt.Option[netip.AddrPort]
	Local             netip.Addr // source address of packets to it; the zero Addr leaves the choice to the kernel
	Allowed           []netip.Prefix
	Sent, Received    uint64 // bytes
	Newest            tai64n.Timestamp
	Finished          int64 // of the last handshake, Unix nanoseconds; 0: none

	ReadAt, PersistAt, SentAt, GotAt, OwedSince, AwaitSince Moment

	WantsKeys bool // a handshake is due, or was under way
	Active    opt.Option[Active]
}

// Active is the state of a peer in use: handshake, keypairs and staged packets. A handshake that was
// under way is begun anew.
type Active struct {
	Shared                       noise.Key
	BegunAt, OpenedAt, DerivedAt Moment
	Current, Previous, Next      opt.Option[Keypair]
	Staged                       [][]byte
}

// Keypair is a pair of transport keys, with the counters of both directions.
type Keypair struct {
	Keys      noise.Keys
	Local     uint32
	Initiator bool
	Created   Moment
	Counter   uint64 // of the next message to send
	Window    Window
}

// Window says which of the newest counters were received, since those on the way may arrive
// in another order than they were sent: queues of the sender and paths overtake each other.
type Window struct {
	Newest uint64     // the greatest counter received
	Blocks [16]uint64 // a bit for each of 64 counters: the block with Newest, the block before it, and so on
}

// Wipe overwrites the secrets.
func (d *Device) Wipe() {
	d.Private.Wipe()
	for i := range d.Peers {
		p := &d.Peers[i]
		p.Preshared.Wipe()
		p.Active = opt.None[Active]()
	}
}
