package noise

import (
	"crypto/cipher"
	"crypto/ecdh"
	"encoding/binary"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.zx2c4.com/wireguard/tai64n"
)

// Remote is the key material that an initiator has of the node it calls.
type Remote struct {
	Public    Key
	Shared    Key // Identity.Shared(Public)
	Preshared Key // zero: none
}

// Initiator is a handshake this node began and has no answer to yet.
type Initiator struct {
	identity  *Identity
	ephemeral *ecdh.PrivateKey
	transcript
	preshared Key
	local     uint32
}

// Initiate begins a handshake and returns its first message, both codes still zero: see
// Stamp. local is the index the answer will carry.
func (i *Identity) Initiate(to Remote, local uint32, stamp tai64n.Timestamp) (*Initiator, []byte, error) {
	ephemeral, err := newEphemeral()
	if err != nil {
		return nil, nil, err
	}
	return i.initiate(ephemeral, to, local, stamp)
}

// initiate is Initiate with a given ephemeral key, for known answers.
func (i *Identity) initiate(ephemeral *ecdh.PrivateKey, to Remote, local uint32, stamp tai64n.Timestamp) (*Initiator, []byte, error) {
	t := begin(to.Public)
	public := Key(ephemeral.PublicKey().Bytes())
	secret, err := agree(ephemeral, to.Public)
	if err != nil {
		return nil, nil, err
	}
	msg := make([]byte, 0, InitiationSize)
	msg = binary.LittleEndian.AppendUint32(msg, TypeInitiation)
	msg = binary.LittleEndian.AppendUint32(msg, local)
	msg = append(msg, public[:]...)
	t.mixEphemeral(public)
	msg = t.seal(msg, t.mixSecretForKey(secret), i.public[:])
	msg = t.seal(msg, t.mixSecretForKey(to.Shared), stamp[:])
	h := &Initiator{identity: i, ephemeral: ephemeral, transcript: t, preshared: to.Preshared, local: local}
	return h, msg[:InitiationSize], nil
}

// Local returns the index given to Initiate.
func (h *Initiator) Local() uint32 { return h.local }

// Finish reads the answer. After an error the handshake goes on as if the message had not
// come; after success the Initiator is wiped.
func (h *Initiator) Finish(msg []byte) (Keys, error) {
	if !Well(msg, TypeResponse) || binary.LittleEndian.Uint32(msg[8:]) != h.local || h.ephemeral == nil {
		return Keys{}, ErrRejected
	}
	t := h.transcript // a copy: a forged answer must leave no trace
	public := Key(msg[12:44])
	t.mixEphemeral(public)
	for _, private := range []*ecdh.PrivateKey{h.ephemeral, h.identity.private} {
		secret, err := agree(private, public)
		if err != nil {
			return Keys{}, err
		}
		t.mixSecret(secret)
	}
	if _, err := t.open(t.mixPreshared(h.preshared), msg[44:60]); err != nil {
		return Keys{}, err
	}
	keys := Keys{Remote: binary.LittleEndian.Uint32(msg[4:])}
	keys.Send, keys.Receive = t.split()
	t.wipe()
	h.Wipe()
	return keys, nil
}

// Wipe forgets the handshake's secrets. What crypto/ecdh holds is left to the collector.
func (h *Initiator) Wipe() {
	h.transcript.wipe()
	h.preshared.Wipe()
	h.ephemeral = nil
}

// Responder is an initiation from outside, being read.
type Responder struct {
	identity  *Identity
	ephemeral Key
	stamp     []byte // the encrypted timestamp
	transcript
	remote      Key
	remoteIndex uint32
}

// Receive reads the sender's static key of an initiation, at the price of a Diffie-Hellman. The
// sender is not proven yet: see Verify.
func (i *Identity) Receive(msg []byte) (*Responder, error) {
	if !Well(msg, TypeInitiation) {
		return nil, ErrRejected
	}
	r := &Responder{identity: i, transcript: begin(i.public), ephemeral: Key(msg[8:40])}
	r.remoteIndex = binary.LittleEndian.Uint32(msg[4:])
	r.stamp = append(r.stamp, msg[88:116]...)
	r.mixEphemeral(r.ephemeral)
	secret, err := agree(i.private, r.ephemeral)
	if err != nil {
		return nil, err
	}
	static, err := r.open(r.mixSecretForKey(secret), msg[40:88])
	if err != nil {
		return nil, err
	}
	r.remote = Key(static)
	return r, nil
}

// Remote returns the static key the sender claims.
func (r *Responder) Remote() Key { return r.remote }

// Verify proves that the sender holds the private half of Remote and returns the
// timestamp. shared is Identity.Shared(Remote()). A timestamp that is not greater than the
// newest of this remote is a replay, which only the caller can know. Call it once.
func (r *Responder) Verify(shared Key) (tai64n.Timestamp, error) {
	plain, err := r.open(r.mixSecretForKey(shared), r.stamp)
	if err != nil {
		return tai64n.Timestamp{}, err
	}
	return tai64n.Timestamp(plain), nil
}

// Respond completes a verified handshake and returns the answer, both codes still zero, and
// the transport keys. The Responder is wiped.
func (r *Responder) Respond(preshared Key, local uint32) ([]byte, Keys, error) {
	ephemeral, err := newEphemeral()
	if err != nil {
		return nil, Keys{}, err
	}
	return r.respond(ephemeral, preshared, local)
}

// respond is Respond with a given ephemeral key, for known answers.
func (r *Responder) respond(ephemeral *ecdh.PrivateKey, preshared Key, local uint32) ([]byte, Keys, error) {
	public := Key(ephemeral.PublicKey().Bytes())
	msg := make([]byte, 0, ResponseSize)
	msg = binary.LittleEndian.AppendUint32(msg, TypeResponse)
	msg = binary.LittleEndian.AppendUint32(msg, local)
	msg = binary.LittleEndian.AppendUint32(msg, r.remoteIndex)
	msg = append(msg, public[:]...)
	r.mixEphemeral(public)
	for _, other := range []Key{r.ephemeral, r.remote} {
		secret, err := agree(ephemeral, other)
		if err != nil {
			return nil, Keys{}, err
		}
		r.mixSecret(secret)
	}
	msg = r.seal(msg, r.mixPreshared(preshared), nil)
	keys := Keys{Remote: r.remoteIndex}
	keys.Receive, keys.Send = r.split()
	r.wipe()
	return msg[:ResponseSize], keys, nil
}

func newAEAD(key Key) cipher.AEAD {
	aead, err := chacha20poly1305.New(key[:])
	if err != nil {
		panic("noise: a key of 32 bytes was refused: " + err.Error()) // impossible: the size is in the type
	}
	return aead
}
