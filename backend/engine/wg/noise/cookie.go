package noise

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

const (
	labelMAC1   = "mac1----"
	labelCookie = "cookie--"
	macSize     = 16

	// cookieAge is how long a cookie and the secret behind it are good: section 5.4.7.
	cookieAge = 2 * time.Minute
	// cookieSlack is how much earlier a sender stops using a cookie, for the way it travels.
	cookieSlack = 5 * time.Second
)

// CookieChecker checks the codes of messages addressed to an identity, and answers with
// cookies: wireguard-go's CookieChecker, and struct cookie_checker of the kernel. It
// is safe for concurrent use. Moments are durations on any clock that does not go back.
type CookieChecker struct {
	mac1   Key
	cookie cipher.AEAD

	mu     sync.Mutex // guards the fields below
	secret Key
	since  time.Duration // when secret was drawn
	drawn  bool
}

// NewCookieChecker returns the checker of the identity with this public key.
func NewCookieChecker(public Key) *CookieChecker {
	return &CookieChecker{mac1: labelled(labelMAC1, public), cookie: newXAEAD(labelled(labelCookie, public))}
}

// MAC1 reports whether the first code of a handshake message is right: the sender knows
// our public key. It costs a single hash.
func (c *CookieChecker) MAC1(msg []byte) bool {
	n := len(msg) - 2*macSize
	want := mac(c.mac1[:], msg[:n])
	return hmac.Equal(want[:], msg[n:n+macSize])
}

// MAC2 reports whether the second code proves that the sender received a cookie of ours,
// at the address the message comes from.
func (c *CookieChecker) MAC2(msg []byte, from netip.AddrPort, now time.Duration) bool {
	secret, fresh := c.currentSecret(now)
	if !fresh {
		return false
	}
	n := len(msg) - macSize
	cookie := cookieFor(secret, from)
	want := mac(cookie[:], msg[:n])
	return hmac.Equal(want[:], msg[n:])
}

// Reply answers a handshake message with a cookie instead of work.
func (c *CookieChecker) Reply(msg []byte, from netip.AddrPort, now time.Duration) []byte {
	secret := c.renewSecret(now)
	out := make([]byte, 8, CookieSize)
	binary.LittleEndian.PutUint32(out, TypeCookie)
	binary.LittleEndian.PutUint32(out[4:], Sender(msg))
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	rand.Read(nonce)
	cookie := cookieFor(secret, from)
	mac1 := msg[len(msg)-2*macSize : len(msg)-macSize]
	return c.cookie.Seal(append(out, nonce...), nonce, cookie[:], mac1)
}

// currentSecret returns the secret behind the cookies, and whether it is still good.
func (c *CookieChecker) currentSecret(now time.Duration) (secret Key, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.secret, c.drawn && now-c.since < cookieAge
}

// renewSecret returns the secret behind the cookies, drawn anew when it is too old.
func (c *CookieChecker) renewSecret(now time.Duration) Key {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.drawn || now-c.since >= cookieAge {
		rand.Read(c.secret[:])
		c.since, c.drawn = now, true
	}
	return c.secret
}

// cookieFor derives the cookie of an address: it need not be remembered.
func cookieFor(secret Key, from netip.AddrPort) [macSize]byte {
	address := from.Addr().Unmap().AsSlice()
	return mac(secret[:], binary.BigEndian.AppendUint16(address, from.Port()))
}

// Stamp writes the codes of messages to a remote node and keeps the cookie it gave. It is
// not safe for concurrent use.
type Stamp struct {
	mac1   Key
	remote Key
	last   [macSize]byte // the first code of the last message: cookies are bound to it
	sent   bool
	cookie [macSize]byte
	since  time.Duration
	held   bool
}

// NewStamp returns the stamp for messages to the node with this public key.
func NewStamp(remote Key) *Stamp {
	return &Stamp{mac1: labelled(labelMAC1, remote), remote: remote}
}

// Sign writes both codes into a handshake message. Without a fresh cookie the second stays
// zero.
func (s *Stamp) Sign(msg []byte, now time.Duration) {
	first, second := len(msg)-2*macSize, len(msg)-macSize
	s.last = mac(s.mac1[:], msg[:first])
	s.sent = true
	copy(msg[first:], s.last[:])
	clear(msg[second:])
	if s.Fresh(now) {
		code := mac(s.cookie[:], msg[:second])
		copy(msg[second:], code[:])
	}
}

// Accept reads a cookie message. It must answer the last message signed.
func (s *Stamp) Accept(msg []byte, now time.Duration) error {
	if !Well(msg, TypeCookie) || !s.sent {
		return ErrRejected
	}
	nonce := msg[8 : 8+chacha20poly1305.NonceSizeX]
	plain, err := newXAEAD(labelled(labelCookie, s.remote)).Open(nil, nonce, msg[8+len(nonce):], s.last[:])
	if err != nil {
		return ErrRejected
	}
	copy(s.cookie[:], plain)
	s.since, s.held, s.sent = now, true, false
	return nil
}

// HasCookie reports whether s holds a cookie, of any age.
func (s *Stamp) HasCookie() bool { return s.held }

// Fresh reports whether s holds a cookie that is still good.
func (s *Stamp) Fresh(now time.Duration) bool { return s.held && now-s.since < cookieAge-cookieSlack }

// labelled hashes a label and a public key to a key.
func labelled(label string, public Key) Key {
	return blake2s.Sum256(append([]byte(label), public[:]...))
}

// mac is keyed BLAKE2s with 16 bytes of output.
func mac(key, data []byte) (out [macSize]byte) {
	h, err := blake2s.New128(key)
	if err != nil {
		panic("noise: " + err.Error()) // impossible: keys here have 16 or 32 bytes
	}
	h.Write(data)
	h.Sum(out[:0])
	return out
}

func newXAEAD(key Key) cipher.AEAD {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic("noise: a key of 32 bytes was refused: " + err.Error()) // impossible: the size is in the type
	}
	return aead
}
