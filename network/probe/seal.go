package probe

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// A datagram is sealed for exactly one receiver, by a key for exactly one direction:
//
//	0       4                      28                                    len
//	| magic | nonce                | message, sealed (XChaCha20-Poly1305) |
//	        | id    | random       |
//
// The first 8 bytes of the nonce are the id of the message. An ICMP error quotes them, and
// so proves that a question of this node arrived at a host: nobody else knows them.
const (
	magic     = "LdN\x01"
	nonceSize = chacha20poly1305.NonceSizeX
	tagSize   = chacha20poly1305.Overhead
	idSize    = 8

	// sealSize is what sealing adds to a message, bytes.
	sealSize = len(magic) + nonceSize + tagSize

	// label separates the keys of this protocol from other uses of the same static keys.
	label = "loden node-to-node 1"
)

// errForged says that a datagram was not sealed by the peer for this node.
var errForged = errors.New("the datagram is not authentic")

// seals are the keys of a pair of nodes.
type seals struct {
	out, in cipher.AEAD
}

// newSeals derives the keys of a pair from the X25519 of one's private and the other's
// public key. A direction has a key of its own, so that no datagram can be sent back as an
// answer.
func newSeals(shared [32]byte, own, peer wgtypes.Key) (s seals, err error) {
	if s.out, err = directed(shared, own, peer); err != nil {
		return s, err
	}
	s.in, err = directed(shared, peer, own)
	return s, err
}

// directed returns the key for datagrams from a node to a node.
func directed(shared [32]byte, from, to wgtypes.Key) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, shared[:], nil, label+string(from[:])+string(to[:]), chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return aead, nil
}

// seal returns the datagram of a message, and its id.
func (s seals) seal(message []byte) (datagram []byte, id uint64) {
	out := make([]byte, len(magic)+nonceSize, sealSize+len(message))
	copy(out, magic)
	_, _ = rand.Read(out[len(magic):]) // crypto/rand never fails: it ends the program instead
	id, _ = idOf(out)
	return s.out.Seal(out, out[len(magic):], message, out[:len(magic)]), id
}

// open returns the message in a datagram, and its id. Errors: errForged.
func (s seals) open(datagram []byte) (message []byte, id uint64, err error) {
	id, ok := idOf(datagram)
	if !ok || len(datagram) < sealSize {
		return nil, 0, errForged
	}
	nonce, sealed := datagram[len(magic):len(magic)+nonceSize], datagram[len(magic)+nonceSize:]
	message, err = s.in.Open(nil, nonce, sealed, datagram[:len(magic)])
	if err != nil {
		return nil, 0, errForged
	}
	return message, id, nil
}

// idOf reads the id of a datagram, or of the beginning of a datagram in an ICMP error.
func idOf(datagram []byte) (id uint64, ok bool) {
	if len(datagram) < len(magic)+idSize || string(datagram[:len(magic)]) != magic {
		return 0, false
	}
	for _, b := range datagram[len(magic) : len(magic)+idSize] {
		id = id<<8 | uint64(b)
	}
	return id, true
}
