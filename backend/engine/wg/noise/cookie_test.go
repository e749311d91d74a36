package noise

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

var (
	caller   = netip.MustParseAddrPort("192.0.2.1:51820")
	stranger = netip.MustParseAddrPort("192.0.2.1:51821")
)

// unsigned returns an initiation-sized message without codes.
func unsigned() []byte {
	msg := bytes.Repeat([]byte{0x5a}, InitiationSize)
	copy(msg, []byte{TypeInitiation, 0, 0, 0})
	return msg
}

func TestCookieProvesTheAddress(t *testing.T) {
	key := fill(3)
	checker, stamp, msg := NewCookieChecker(key), NewStamp(key), unsigned()
	stamp.Sign(msg, 0)
	if !checker.MAC1(msg) || checker.MAC2(msg, caller, 0) {
		t.Fatal("a first message carries mac1 and no mac2")
	}
	if err := stamp.Accept(checker.Reply(msg, caller, 0), 0); err != nil {
		t.Fatal(err)
	}
	stamp.Sign(msg, time.Second)
	for _, at := range []struct {
		name string
		from netip.AddrPort
		now  time.Duration
		want bool
	}{
		{"same address", caller, time.Second, true},
		{"other port", stranger, time.Second, false},
		{"just in time", caller, 2*time.Minute - 1, true},
		{"too late", caller, 2 * time.Minute, false},
	} {
		if got := checker.MAC2(msg, at.from, at.now); got != at.want {
			t.Errorf("%s: got %v", at.name, got)
		}
	}
}

func TestOldCookieIsNotUsed(t *testing.T) {
	checker, stamp, msg := NewCookieChecker(fill(3)), NewStamp(fill(3)), unsigned()
	stamp.Sign(msg, 0)
	if err := stamp.Accept(checker.Reply(msg, caller, 0), 0); err != nil {
		t.Fatal(err)
	}
	stamp.Sign(msg, 115*time.Second)
	if !bytes.Equal(msg[len(msg)-16:], make([]byte, 16)) {
		t.Error("a cookie of 115 s was used")
	}
}

func TestCookieMustAnswerTheLastMessage(t *testing.T) {
	checker, stamp := NewCookieChecker(fill(3)), NewStamp(fill(3))
	if err := stamp.Accept(make([]byte, CookieSize), 0); !errors.Is(err, ErrRejected) {
		t.Errorf("cookie out of nowhere: %v", err)
	}
	one, two := unsigned(), unsigned()
	stamp.Sign(one, 0)
	late := checker.Reply(one, caller, 0)
	two[20] ^= 1
	stamp.Sign(two, 0)
	if err := stamp.Accept(late, 0); !errors.Is(err, ErrRejected) {
		t.Errorf("cookie for an older message: %v", err)
	}
	reply := checker.Reply(two, caller, 0)
	if err := stamp.Accept(reply, 0); err != nil {
		t.Error(err)
	}
	if err := stamp.Accept(reply, 0); !errors.Is(err, ErrRejected) {
		t.Errorf("the same cookie twice: %v", err)
	}
}

func TestCookiesAreThoseOfWireGuardGo(t *testing.T) {
	key := fill(3)
	source := append(caller.Addr().AsSlice(), 0xca, 0x6c) // 51820, as it is on the wire
	t.Run("their message, our checker", func(t *testing.T) {
		var theirs device.CookieGenerator
		theirs.Init(device.NoisePublicKey(key))
		checker, msg := NewCookieChecker(key), unsigned()
		theirs.AddMacs(msg)
		if !checker.MAC1(msg) {
			t.Fatal("mac1 refused")
		}
		var reply device.MessageCookieReply
		raw := checker.Reply(msg, caller, 0)
		copy(reply.Nonce[:], raw[8:])
		copy(reply.Cookie[:], raw[32:])
		if !theirs.ConsumeReply(&reply) {
			t.Fatal("cookie refused")
		}
		theirs.AddMacs(msg)
		if !checker.MAC2(msg, caller, 0) {
			t.Error("mac2 refused")
		}
	})
	t.Run("our message, their checker", func(t *testing.T) {
		var theirs device.CookieChecker
		theirs.Init(device.NoisePublicKey(key))
		stamp, msg := NewStamp(key), unsigned()
		stamp.Sign(msg, 0)
		if !theirs.CheckMAC1(msg) {
			t.Fatal("mac1 refused")
		}
		reply, err := theirs.CreateReply(msg, 1, source)
		if err != nil {
			t.Fatal(err)
		}
		raw := append([]byte{TypeCookie, 0, 0, 0, 1, 0, 0, 0}, reply.Nonce[:]...)
		if err := stamp.Accept(append(raw, reply.Cookie[:]...), 0); err != nil {
			t.Fatal(err)
		}
		stamp.Sign(msg, 0)
		if !theirs.CheckMAC2(msg, source) {
			t.Error("mac2 refused")
		}
	})
}

func FuzzCookie(f *testing.F) {
	checker, stamp, msg := NewCookieChecker(fill(3)), NewStamp(fill(4)), unsigned()
	stamp.Sign(msg, 0)
	f.Add(checker.Reply(msg, caller, 0))
	f.Fuzz(func(t *testing.T, reply []byte) {
		if err := stamp.Accept(reply, 0); err == nil {
			t.Error("a cookie by somebody else was taken")
		}
	})
}
