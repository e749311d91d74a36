// Package wg owns a WireGuard device in user space: it ties the protocol (wg/peer), the sockets
// (wg/conn), the TUN device (wg/tun) and the configuration text (wg/uapi) together, with a data
// path that moves super-packets between them. It speaks WireGuard as the white paper defines it
// and knows nothing of Loden's leases, nodes or routes.
//
//	            sender (one per queue of the TUN)           receiver (one per socket)
//	TUN ─read─► route ─► keypair ─► cut, seal ─► UDP     UDP ─► open, replay ─► route ─► join ─► TUN
//	               │ none yet                             │ handshake messages
//	               ▼                                      ▼
//	          staged packets ◄──────────────────── handshake worker (one goroutine)
//	                                                      ▲
//	             one timer per peer in use ── retries, keepalives, erasing of keys
//
// No goroutine belongs to a peer.
//
// White paper: Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", 2020. Section
// numbers in comments are sections of that text.
package wg

import (
	"time"

	"github.com/loden-net/loden/backend/engine/wg/peer"
)

// Bounds of this implementation.
const (
	handshakeQueueSize  = 1024 // handshake messages that wait for the worker, 148 bytes each
	loadedAt            = handshakeQueueSize / 8
	maxHandshakeWorkers = 4           // a handshake takes 0.2 ms of a processor
	manyPeers           = 128         // a dump of them takes 0.1 ms: more is work of which the scheduler hears
	textSize            = 400         // bytes of the dump of a peer, about
	dumpedAtOnce        = 64          // peers that a dump formats under the lock and writes in a row
	loadedFor           = time.Second // cookies are demanded this long after the queue was that full
)

// moment is a time on the device's own clock, which never goes back. Zero is "never".
type moment = peer.Moment
