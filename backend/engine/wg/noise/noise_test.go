package noise

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"

	"golang.zx2c4.com/wireguard/tai64n"
	"pgregory.net/rapid"
)

// fill returns a key whose bytes are all b, as the known answers were made with.
func fill(b byte) Key { return Key(bytes.Repeat([]byte{b}, 32)) }

func identity(t testing.TB, private Key) *Identity {
	t.Helper()
	id, err := NewIdentity(private)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func shared(t testing.TB, id *Identity, other Key) Key {
	t.Helper()
	s, err := id.Shared(other)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ephemeral(t testing.TB, seed Key) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.X25519().NewPrivateKey(seed[:])
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// The answers were computed with github.com/flynn/noise v1.1.0, an implementation of Noise
// of its own: pattern IK, preshared key at place 2, WireGuard's identifier as prologue,
// static keys 01… and 02…, ephemeral keys 03… and 04…
func TestHandshakeMatchesAnIndependentNoiseImplementation(t *testing.T) {
	const first = "5dfedd3b6bd47f6fa28ee15d969d5bb0ea53774d488bdaf9df1c6e0124b3ef220a26599fb2188bb723276fc173af67616c817fc32fd04d686d87ec152fac10eed2bda3bb3b6f1eded6977684082284d817fb46b393c89ae9bc253dd2f42e52a998c2d1f19bcf5b2f7bfc89d3"
	for _, answer := range []struct {
		name                   string
		preshared              Key
		second, forth, andBack string
	}{
		{
			"with a preshared key", fill(5),
			"ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10bcf196fe5cca787feaf8716b9f543d045",
			"a18cc809fd05b6b5f99644cf506f89dce368c2f54a9dbeb9a384f36c274317ef",
			"b1aa1b797d3a45da97552b8084ade493aa767f15af95854bc86557f6dacd851d",
		},
		{
			"without", Key{},
			"ac01b2209e86354fb853237b5de0f4fab13c7fcbf433a61c019369617fecf10b753c2d798046fe7d4c4628704beb6cca",
			"b30c71d520eb54edcf0ad32b6c2e5bdff747e6e2bf8a126ae52eb1c7140b4398",
			"bc8d9cb5d3c1654d26eef4fab1426ff05fff238c2ddac280941197772e21c21c",
		},
	} {
		t.Run(answer.name, func(t *testing.T) {
			i, r := identity(t, fill(1)), identity(t, fill(2))
			stamp := tai64n.Timestamp{0x40, 4: 0x5f, 8: 1, 9: 2, 10: 3, 11: 4}
			to := Remote{Public: r.Public(), Shared: shared(t, i, r.Public()), Preshared: answer.preshared}
			began, msg, err := i.initiate(ephemeral(t, fill(3)), to, 7, stamp)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "initiation", msg[8:116], first)
			got, err := r.Receive(msg)
			if err != nil {
				t.Fatal(err)
			}
			if seen, err := got.Verify(shared(t, r, got.Remote())); err != nil || seen != stamp {
				t.Fatalf("timestamp: got %v, %v", seen, err)
			}
			reply, there, err := got.respond(ephemeral(t, fill(4)), answer.preshared, 9)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "response", reply[12:60], answer.second)
			here, err := began.Finish(reply)
			if err != nil {
				t.Fatal(err)
			}
			same(t, "initiator's sending key", here.Send[:], answer.forth)
			same(t, "initiator's receiving key", here.Receive[:], answer.andBack)
			if here.Send != there.Receive || here.Receive != there.Send || here.Remote != 9 || there.Remote != 7 {
				t.Error("the two sides do not agree")
			}
		})
	}
}

func same(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if hex.EncodeToString(got) != want {
		t.Errorf("%s:\ngot  %x\nwant %s", what, got, want)
	}
}

// exchange is a whole handshake between fresh nodes, with a chance to alter each message.
func exchange(t testing.TB, tamper func(step int, msg []byte)) error {
	i, r := identity(t, fill(11)), identity(t, fill(12))
	to := Remote{Public: r.Public(), Shared: shared(t, i, r.Public())}
	began, msg, err := i.Initiate(to, 1, tai64n.Now())
	if err != nil {
		return err
	}
	tamper(1, msg)
	got, err := r.Receive(msg)
	if err != nil {
		return err
	}
	s, err := r.Shared(got.Remote())
	if err != nil {
		return err
	}
	if _, err := got.Verify(s); err != nil {
		return err
	}
	reply, _, err := got.Respond(Key{}, 2)
	if err != nil {
		return err
	}
	tamper(2, reply)
	_, err = began.Finish(reply)
	return err
}

func TestEveryAlteredBitIsRejected(t *testing.T) {
	if err := exchange(t, func(int, []byte) {}); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		step := rapid.IntRange(1, 2).Draw(rt, "step")
		bit := rapid.IntRange(0, 7).Draw(rt, "bit")
		// What the handshake itself protects: not the sender's index, and not the codes.
		at := rapid.IntRange(8, 115).Draw(rt, "initiation byte")
		if step == 2 {
			at = rapid.IntRange(8, 59).Draw(rt, "response byte")
		}
		err := exchange(t, func(n int, msg []byte) {
			if n == step {
				msg[at] ^= 1 << bit
			}
		})
		// The top bit of a Curve25519 point is ignored by the curve, not by the hash.
		if !errors.Is(err, ErrRejected) {
			rt.Fatalf("bit %d of byte %d of message %d altered: got %v", bit, at, step, err)
		}
	})
}

func TestForgedAnswerLeavesTheHandshakeUsable(t *testing.T) {
	i, r := identity(t, fill(11)), identity(t, fill(12))
	began, msg, err := i.Initiate(Remote{Public: r.Public(), Shared: shared(t, i, r.Public())}, 1, tai64n.Now())
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Receive(msg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.Verify(shared(t, r, i.Public())); err != nil {
		t.Fatal(err)
	}
	reply, _, err := got.Respond(Key{}, 2)
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.Clone(reply)
	forged[50] ^= 1
	if _, err := began.Finish(forged); !errors.Is(err, ErrRejected) {
		t.Fatalf("forged answer: %v", err)
	}
	if _, err := began.Finish(reply); err != nil {
		t.Errorf("true answer after a forged one: %v", err)
	}
	if _, err := began.Finish(reply); !errors.Is(err, ErrRejected) {
		t.Errorf("the same answer twice: %v", err)
	}
}

func TestDifferentPresharedKeysDoNotMeet(t *testing.T) {
	i, r := identity(t, fill(11)), identity(t, fill(12))
	to := Remote{Public: r.Public(), Shared: shared(t, i, r.Public()), Preshared: fill(9)}
	began, msg, _ := i.Initiate(to, 1, tai64n.Now())
	got, _ := r.Receive(msg)
	if _, err := got.Verify(shared(t, r, i.Public())); err != nil {
		t.Fatal(err)
	}
	reply, _, _ := got.Respond(fill(8), 2)
	if _, err := began.Finish(reply); !errors.Is(err, ErrRejected) {
		t.Errorf("got %v", err)
	}
}

func TestPointOfLowOrderIsRefused(t *testing.T) {
	if _, err := identity(t, fill(1)).Shared(Key{}); !errors.Is(err, ErrRejected) {
		t.Errorf("got %v", err)
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	k := fill(0xab)
	for _, verb := range []string{"%v", "%s", "%+v", "%#v"} {
		if out := fmt.Sprintf(verb, struct{ K Key }{k}); bytes.Contains([]byte(out), []byte("171")) || bytes.Contains([]byte(out), []byte("ab")) || bytes.Contains([]byte(out), []byte("AB")) {
			t.Errorf("%s prints %s", verb, out)
		}
	}
}

func FuzzReceive(f *testing.F) {
	i, r := identity(f, fill(1)), identity(f, fill(2))
	_, msg, err := i.Initiate(Remote{Public: r.Public(), Shared: shared(f, i, r.Public())}, 1, tai64n.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(msg)
	f.Add(msg[:100])
	f.Add([]byte{1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		got, err := r.Receive(msg)
		if err != nil {
			return
		}
		if s, err := r.Shared(got.Remote()); err == nil {
			_, _ = got.Verify(s)
		}
	})
}

func FuzzFinish(f *testing.F) {
	i, r := identity(f, fill(1)), identity(f, fill(2))
	began, msg, err := i.Initiate(Remote{Public: r.Public(), Shared: shared(f, i, r.Public())}, 1, tai64n.Now())
	if err != nil {
		f.Fatal(err)
	}
	got, err := r.Receive(msg)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := got.Verify(shared(f, r, i.Public())); err != nil {
		f.Fatal(err)
	}
	reply, _, err := got.Respond(fill(7), 2) // another preshared key: it never succeeds
	if err != nil {
		f.Fatal(err)
	}
	f.Add(reply)
	f.Add(reply[:60])
	f.Fuzz(func(t *testing.T, msg []byte) {
		if _, err := began.Finish(msg); err == nil {
			t.Error("an answer without the preshared key was taken")
		}
	})
}
