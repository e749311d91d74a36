// Package noise owns WireGuard's cryptography: the Noise_IKpsk2 handshake, the two
// message authentication codes with their cookies, and the layout of handshake messages.
// It computes and never waits: no sockets, no peers, no timers, no clock of its own.
//
//	initiator                                            responder
//	Identity.Initiate ── initiation, 148 bytes ────────► Identity.Receive, Responder.Verify
//	Initiator.Finish  ◄─ response, 92 bytes ──────────── Responder.Respond
//	      │                                                   │
//	      └── Keys ─────── transport messages ─────── Keys ───┘
//
// The source is "WireGuard: Next Generation Kernel Network Tunnel", Donenfeld, section 5.4;
// names of steps in comments are those of that section.
package noise

import (
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
)

const (
	construction = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
	identifier   = "WireGuard v1 zx2c4 Jason@zx2c4.com"
)

// ErrRejected is the error for every message that does not belong here: wrong size, wrong key,
// altered or out of turn. It gives no further reason, on purpose.
var ErrRejected = errors.New("handshake message rejected")

// Key is a Curve25519 public key, a shared secret or a preshared key. It does not print.
type Key [32]byte

// IsZero reports whether k is all zeros, which WireGuard reads as "not set".
func (k Key) IsZero() bool { return k == Key{} }

// Hex returns k as UAPI writes it: 64 hexadecimal digits. Never log it for a secret.
func (k Key) Hex() string { return hex.EncodeToString(k[:]) }

// String hides the key: most keys are secret.
func (k Key) String() string { return "key" }

// GoString hides the key from %#v.
func (k Key) GoString() string { return "noise.Key" }

// Wipe overwrites k with zeros.
func (k *Key) Wipe() { clear(k[:]) }

// Keys are the two transport keys that a finished handshake leaves.
type Keys struct {
	Send, Receive Key
	Remote        uint32 // the index the other side chose: it goes into messages to it
}

// Wipe overwrites both keys.
func (k *Keys) Wipe() {
	k.Send.Wipe()
	k.Receive.Wipe()
}

// Identity is a node's own static key pair. Safe for concurrent use; immutable.
type Identity struct {
	private *ecdh.PrivateKey
	public  Key
}

// NewIdentity makes an identity of a private key, clamped as Curve25519 wants it.
func NewIdentity(private Key) (*Identity, error) {
	private[0] &= 248
	private[31] = private[31]&127 | 64
	key, err := ecdh.X25519().NewPrivateKey(private[:])
	if err != nil {
		return nil, fmt.Errorf("make identity: %w", err)
	}
	return &Identity{private: key, public: Key(key.PublicKey().Bytes())}, nil
}

// Public returns the public half.
func (i *Identity) Public() Key { return i.public }

// Private returns the private half, for UAPI's get, which promises it.
func (i *Identity) Private() Key { return Key(i.private.Bytes()) }

// Shared returns the Diffie-Hellman result with a remote static key: a scalar
// multiplication, about 60 µs. It fails on points of low order.
func (i *Identity) Shared(remote Key) (Key, error) { return agree(i.private, remote) }

// newEphemeral draws a fresh key pair.
func newEphemeral() (*ecdh.PrivateKey, error) {
	var seed Key
	defer seed.Wipe()
	rand.Read(seed[:]) // never fails: crypto/rand ends the program instead
	return ecdh.X25519().NewPrivateKey(seed[:])
}

// agree computes DH(private, public).
func agree(private *ecdh.PrivateKey, public Key) (Key, error) {
	p, err := ecdh.X25519().NewPublicKey(public[:])
	if err != nil {
		return Key{}, err
	}
	secret, err := private.ECDH(p)
	if err != nil {
		return Key{}, ErrRejected // a point of low order: a secret an outsider would know
	}
	return Key(secret), nil
}

// transcript is the symmetric state: the chaining key C and the hash H.
type transcript struct{ chain, hash Key }

// begin starts a transcript addressed to the responder's static key.
func begin(responder Key) transcript {
	t := transcript{chain: blake2s.Sum256([]byte(construction))}
	t.hash = t.chain
	t.mixHash([]byte(identifier))
	t.mixHash(responder[:])
	return t
}

// mixHash folds public bytes in: H ← Hash(H ‖ data).
func (t *transcript) mixHash(data []byte) {
	h := newHash()
	h.Write(t.hash[:])
	h.Write(data)
	h.Sum(t.hash[:0])
}

// mixEphemeral folds an ephemeral public key into both: C ← Kdf1(C, E), H ← Hash(H ‖ E).
func (t *transcript) mixEphemeral(public Key) {
	t.mixHash(public[:])
	t.mixSecret(public)
}

// mixSecret folds a secret in: C ← Kdf1(C, secret).
func (t *transcript) mixSecret(secret Key) {
	kdf(t.chain, secret[:], &t.chain)
}

// mixSecretForKey folds a secret in and derives a message key: (C, k) ← Kdf2(C, secret).
func (t *transcript) mixSecretForKey(secret Key) (key Key) {
	kdf(t.chain, secret[:], &t.chain, &key)
	return key
}

// mixPreshared folds the preshared key Q in: (C, τ, k) ← Kdf3(C, Q), H ← Hash(H ‖ τ).
func (t *transcript) mixPreshared(q Key) (key Key) {
	var tau Key
	kdf(t.chain, q[:], &t.chain, &tau, &key)
	t.mixHash(tau[:])
	return key
}

// seal appends to dst the plaintext encrypted under key with H as additional data, and
// folds the result into H.
func (t *transcript) seal(dst []byte, key Key, plaintext []byte) []byte {
	out := newAEAD(key).Seal(dst, make([]byte, chacha20poly1305.NonceSize), plaintext, t.hash[:])
	t.mixHash(out[len(dst):])
	return out
}

// open reverses seal.
func (t *transcript) open(key Key, ciphertext []byte) ([]byte, error) {
	out, err := newAEAD(key).Open(nil, make([]byte, chacha20poly1305.NonceSize), ciphertext, t.hash[:])
	if err != nil {
		return nil, ErrRejected
	}
	t.mixHash(ciphertext)
	return out, nil
}

// split ends the handshake: the initiator sends with the first key.
func (t *transcript) split() (first, second Key) {
	kdf(t.chain, nil, &first, &second)
	return first, second
}

// wipe overwrites the secret parts.
func (t *transcript) wipe() {
	t.chain.Wipe()
	t.hash.Wipe()
}

// kdf is HKDF with HMAC-BLAKE2s; it fills the outputs in order. chain may be an output.
func kdf(chain Key, input []byte, out ...*Key) {
	extract := hmac.New(newHash, chain[:])
	extract.Write(input)
	secret := extract.Sum(nil)
	expand := hmac.New(newHash, secret)
	var last []byte
	for n, key := range out {
		expand.Reset()
		expand.Write(last)
		expand.Write([]byte{byte(n + 1)})
		last = expand.Sum(nil)
		copy(key[:], last)
	}
	clear(secret)
	clear(last)
}

func newHash() hash.Hash {
	h, _ := blake2s.New256(nil) // fails on a key that is too long only; there is none
	return h
}
