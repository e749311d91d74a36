package uapi

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
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
func (i Interface) Format(w *bytes.Buffer) {
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

// Format appends the lines of the peer. It avoids fmt: a dump of 10,000 peers takes processor time
// that packets wait for.
func (p Peer) Format(w *bytes.Buffer) {
	var line [128]byte
	add := func(name string, value []byte) {
		w.WriteString(name)
		w.Write(value)
		w.WriteByte('\n')
	}
	number := func(name string, n int64) { add(name, strconv.AppendInt(line[:0], n, 10)) }
	add("public_key=", hex.AppendEncode(line[:0], p.PublicKey[:]))
	add("preshared_key=", hex.AppendEncode(line[:0], p.PresharedKey[:]))
	w.WriteString("protocol_version=1\n")
	if to, ok := p.Endpoint.Get(); ok {
		add("endpoint=", to.AppendTo(line[:0]))
	}
	seconds, nanoseconds := int64(0), 0
	if !p.LastHandshake.IsZero() {
		seconds, nanoseconds = p.LastHandshake.Unix(), p.LastHandshake.Nanosecond()
	}
	number("last_handshake_time_sec=", seconds)
	number("last_handshake_time_nsec=", int64(nanoseconds))
	add("tx_bytes=", strconv.AppendUint(line[:0], p.Sent, 10))
	add("rx_bytes=", strconv.AppendUint(line[:0], p.Received, 10))
	number("persistent_keepalive_interval=", int64(p.Keepalive.Seconds()))
	for _, prefix := range p.AllowedIPs {
		add("allowed_ip=", prefix.AppendTo(line[:0]))
	}
	clear(line[:]) // it held a preshared key
}
