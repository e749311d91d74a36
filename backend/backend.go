// Package backend owns a WireGuard interface: kernel or userspace, its key, its MTU and
// its peers, always configured through wgctrl. It knows no leases and no etcd.
package backend

import (
	"bytes"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/sorted"
)

// Peer is another node as WireGuard sees it.
type Peer struct {
	Key       wgtypes.Key
	Endpoint  netip.AddrPort         // address and port that the node publishes; invalid: none
	Subnets   opt.Dual[netip.Prefix] // its allowed IPs
	Keepalive time.Duration          // 0: no persistent keepalive
}

// Compare orders peers by key.
func (p Peer) Compare(other Peer) int { return bytes.Compare(p.Key[:], other.Key[:]) }

// Peers is an immutable list of peers, sorted by key.
type Peers = sorted.List[Peer]

// Config is the desired state of the interface. Except for the private key, `loden plan`
// prints all of it.
type Config struct {
	Port         uint16               // UDP, both families
	MTU          int                  // of the interface, bytes
	Addresses    opt.Dual[netip.Addr] // the node's own overlay addresses, /32 and /128
	PresharedKey opt.Option[config.PresharedKey]
	Peers        Peers
	Removals     Removals
}

// Removals say how far a Config may take something away from a live device. A Config that was
// computed from the copy of the leases on disk may be older than the device: the peers that
// it does not name may be nodes that have joined since. The zero value is for a Config from
// the store.
type Removals uint8

const (
	// RemoveUnwanted removes and changes all that differs from the Config.
	RemoveUnwanted Removals = iota
	// RemoveSilent leaves every peer as it is that has completed a handshake within
	// SessionLife: for the time after the wait for a store that did not answer.
	RemoveSilent
	// RemoveNone leaves every existing peer, prefix, address and the port as they are, and
	// adds only: for the time until the store has answered.
	RemoveNone
)

// SessionLife is WireGuard's Reject-After-Time: the age at which a session ends. A session in
// use is renewed earlier, so a peer whose last handshake is older is not in use or away.
const SessionLife = 180 * time.Second
