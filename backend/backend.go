// Package backend owns one WireGuard interface: kernel or userspace, its key, its MTU and
// its peers, always configured through wgctrl. It knows nothing of leases or of etcd.
package backend

import (
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// Peer is another node as WireGuard sees it.
type Peer struct {
	Key       wgtypes.Key
	Endpoint  netip.AddrPort         // where it was published to listen; a fresher learned one is kept
	Subnets   opt.Dual[netip.Prefix] // its allowed IPs
	Keepalive time.Duration          // 0 sends none
}

// Config is everything the interface should be. Private key aside it is what `loden plan`
// prints. Peers are sorted by key.
type Config struct {
	Port         uint16               // UDP, both families
	MTU          int                  // of the interface, bytes
	Addresses    opt.Dual[netip.Addr] // the node's own overlay addresses, /32 and /128
	PresharedKey opt.Option[config.PresharedKey]
	Peers        []Peer
}
