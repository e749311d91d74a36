package peer

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
	zeroKeysAfter      = 3 * rejectAfterTime             // the keys of an idle peer are erased: section 6.3
	replyTimeout       = keepaliveTimeout + rekeyTimeout // silence after data means a new handshake: section 6.5
	rekeyOnReceive     = rejectAfterTime - keepaliveTimeout - rekeyTimeout
	maxAttempts        = int(rekeyAttemptTime / rekeyTimeout)
	maxJitter          = 333 * time.Millisecond // added to retries, so that two sides do not stay in step: section 6.1
	initiationInterval = time.Second / 50       // between two initiations of a peer; a faster initiation is refused

	rekeyAfterMessages  = 1 << 60
	rejectAfterMessages = math.MaxUint64 - 1<<13 - 1 // 2^64 - 2^13 - 1, and 1 to spare
)

// Bounds of this implementation.
const (
	maxStagedPackets = 32       // of a peer without a keypair; each packet has up to 64 KiB
	maxStagedBytes   = 64 << 10 // of a peer; a single super-packet always fits
	maxStagedTotal   = 8 << 20  // of all peers together
)

// Moment is a time on the device's own clock, which never goes back. Zero is "never".
type Moment = time.Duration

// Time is the time of a call on both clocks.
type Time struct {
	Now  Moment
	Wall time.Time // for the timestamps of initiations and of finished handshakes
}
