package backend

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
)

// PrivateKey is a WireGuard private key. It never prints: not by a verb, not in JSON, not
// inside another struct. The zero value is no key. Compare with Equal.
type PrivateKey struct {
	// A function, because fmt prints unexported fields of structs without asking their
	// methods, and follows a pointer for a verb that does not fit: of a function it shows
	// the address, for every verb. It also makes == impossible.
	secret func() wgtypes.Key
}

func privateKey(k wgtypes.Key) PrivateKey {
	return PrivateKey{secret: func() wgtypes.Key { return k }}
}

// NewKey returns a fresh private key.
func NewKey() (PrivateKey, error) {
	k, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return PrivateKey{}, fmt.Errorf("make private key: %w", err)
	}
	return privateKey(k), nil
}

// Public returns the public key, and the zero key for no key.
func (k PrivateKey) Public() wgtypes.Key {
	if k.secret == nil {
		return wgtypes.Key{}
	}
	return k.secret().PublicKey()
}

// Equal reports whether both are the same key, or both none.
func (k PrivateKey) Equal(other PrivateKey) bool { return k.bytes() == other.bytes() }

// bytes returns the secret, or the zero key, which is how WireGuard writes "none".
func (k PrivateKey) bytes() wgtypes.Key {
	if k.secret == nil {
		return wgtypes.Key{}
	}
	return k.secret()
}

// Shared returns the X25519 of this key and another node's public key, from which both nodes
// derive the same keys. It fails for a public key with which there is no secret.
func (k PrivateKey) Shared(public wgtypes.Key) ([32]byte, error) {
	secret := k.bytes()
	shared, err := curve25519.X25519(secret[:], public[:])
	if err != nil {
		return [32]byte{}, fmt.Errorf("agree on a secret with %s: %w", public, err)
	}
	return [32]byte(shared), nil
}

const hidden = "(hidden)"

// Format hides the key for every verb.
func (PrivateKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, hidden) }

// MarshalText hides the key from JSON and every other encoder of text.
func (PrivateKey) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// KeyPath returns the file of the private key.
func KeyPath(stateDir string) string { return filepath.Join(stateDir, "private.key") }

// OpenKey reads the private key in the state directory, and makes one, durably and for
// root alone, when there is none; created says so. A file that holds no key is left as it
// is: the node's identity is in it, and only its operator can say that it is lost.
func OpenKey(stateDir string) (key PrivateKey, created bool, err error) {
	key, err = ReadKey(stateDir)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	if key, err = NewKey(); err != nil {
		return PrivateKey{}, false, err
	}
	text := key.bytes().String() + "\n"
	if err := config.WriteFile(KeyPath(stateDir), []byte(text), 0o600, 0o700); err != nil {
		return PrivateKey{}, false, fmt.Errorf("keep private key: %w", err)
	}
	return key, true, nil
}

// ReadKey reads the private key in the state directory and changes no file, except for the
// mode of a file that others may read. Without a file the error is fs.ErrNotExist.
func ReadKey(stateDir string) (PrivateKey, error) {
	path := KeyPath(stateDir)
	text, err := os.ReadFile(path)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("read private key: %w", err)
	}
	key, ok := parseKey(string(text))
	if !ok {
		return PrivateKey{}, fmt.Errorf("read private key: %s holds no WireGuard private key: "+
			"put it back from a backup, or remove the file to give this node a new identity", path)
	}
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return PrivateKey{}, fmt.Errorf("protect private key: %w", err)
	}
	return key, nil
}

// parseKey reads the base64 form that `wg genkey` prints. It never quotes its input, which
// may be most of a secret. The bits that X25519 fixes are fixed, as WireGuard does when it
// is given a key: otherwise the key read back would differ from this one for ever.
func parseKey(text string) (PrivateKey, bool) {
	k, err := wgtypes.ParseKey(strings.TrimSpace(text))
	if err != nil || k == (wgtypes.Key{}) {
		return PrivateKey{}, false
	}
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return privateKey(k), true
}
