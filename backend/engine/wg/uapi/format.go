package uapi

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/config/opt"
)

// Interface is the answer to "get" for the device itself. Zero values are left out of the text.
type Interface struct {
	PrivateKey noise.Key
	ListenPort uint16
	Mark       uint32
}

// Format appends the lines of the device.
func (i Interface) Format(w *strings.Builder) {
	if !i.PrivateKey.IsZero() {
		fmt.Fprintf(w, "private_key=%s\n", i.PrivateKey.Hex())
	}
	if i.ListenPort != 0 {
		fmt.Fprintf(w, "listen_port=%d\n", i.ListenPort)
	}
	if i.Mark != 0 {
		fmt.Fprintf(w, "fwmark=%d\n", i.Mark)
	}
}

// Peer is the answer to "get" for a peer.
type Peer struct {
	PublicKey, PresharedKey noise.Key
	Endpoint                opt.Option[netip.AddrPort]
	LastHandshake           time.Time     // zero: none yet
	Sent, Received          uint64        // bytes
	Keepalive               time.Duration // whole seconds; 0: no persistent keepalive
	AllowedIPs              []netip.Prefix
}

// Format appends the lines of the peer.
func (p Peer) Format(w *strings.Builder) {
	fmt.Fprintf(w, "public_key=%s\npreshared_key=%s\nprotocol_version=1\n", p.PublicKey.Hex(), p.PresharedKey.Hex())
	if to, ok := p.Endpoint.Get(); ok {
		fmt.Fprintf(w, "endpoint=%s\n", to)
	}
	seconds, nanoseconds := int64(0), 0
	if !p.LastHandshake.IsZero() {
		seconds, nanoseconds = p.LastHandshake.Unix(), p.LastHandshake.Nanosecond()
	}
	fmt.Fprintf(w, "last_handshake_time_sec=%d\nlast_handshake_time_nsec=%d\n", seconds, nanoseconds)
	fmt.Fprintf(w, "tx_bytes=%d\nrx_bytes=%d\npersistent_keepalive_interval=%d\n", p.Sent, p.Received, int(p.Keepalive.Seconds()))
	for _, prefix := range p.AllowedIPs {
		fmt.Fprintf(w, "allowed_ip=%s\n", prefix)
	}
}
