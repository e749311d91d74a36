// Package wg owns a WireGuard device in user space: peers and their sessions, timers, the
// UAPI configuration protocol, and a data path that moves super-packets between a TUN
// device and UDP sockets. It speaks WireGuard as the white paper defines it and knows
// nothing of Loden's leases, nodes or routes.
//
//	            sender (one per queue of the TUN)           receiver (one per socket)
//	TUN ─read─► route ─► session ─► cut, seal ─► UDP     UDP ─► open, replay ─► route ─► join ─► TUN
//	               │ none yet                             │ handshake messages
//	               ▼                                      ▼
//	          staged packets ◄──────────────────────── clerk (one goroutine)
//	                                                      ▲
//	             one timer per peer in use ── retries, keepalives, forgetting
//
// A configured peer is a compact record. What a conversation needs (handshake, keys,
// staged packets) exists while there is one and is freed when its keys expire; no goroutine
// belongs to a peer.
//
// White paper: Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", 2020. Section
// numbers in comments are of that text.
package wg

import (
	"math"
	"time"
)

// Protocol constants: section 6.1. They are not settings: both sides must agree.
const (
	rekeyAfterTime     = 120 * time.Second
	rejectAfterTime    = 180 * time.Second
	rekeyAttemptTime   = 90 * time.Second
	rekeyTimeout       = 5 * time.Second
	keepaliveTimeout   = 10 * time.Second
	forgetAfter        = 3 * rejectAfterTime             // keys of an idle peer are erased: section 6.3
	replyAfter         = keepaliveTimeout + rekeyTimeout // silence after data means a new handshake: section 6.5
	rekeyOnReceive     = rejectAfterTime - keepaliveTimeout - rekeyTimeout
	maxAttempts        = int(rekeyAttemptTime / rekeyTimeout)
	jitter             = 333 * time.Millisecond // on retries, so that two sides do not stay in step: section 6.1
	initiationInterval = time.Second / 50       // at most that many from one peer are read

	rekeyAfterMessages  = 1 << 60
	rejectAfterMessages = math.MaxUint64 - 1<<13 - 1 // 2^64 - 2^13 - 1 and one to spare
)

// Bounds of this implementation.
const (
	maxStagedPackets = 32       // of one peer that has no session yet; each up to 64 KiB
	maxStagedBytes   = 64 << 10 // of one peer, but one super-packet always fits
	maxStagedTotal   = 8 << 20  // of all peers together
	clerkQueue       = 1024     // handshake messages waiting for the clerk, 148 bytes each
	loadedAt         = clerkQueue / 8
	loadedFor        = time.Second // cookies are demanded this long after the queue was that full
)

// moment is a time on the device's own clock, which never goes back. Zero is "never".
type moment = time.Duration
