package sandbox_test

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// plugged makes a switch with hosts a (192.0.2.1, 2001:db8::1) and b (… 2).
func plugged(t *testing.T) (*sandbox.Switch, *sandbox.Host, *sandbox.Host) {
	t.Helper()
	sw, err := sandbox.NewSwitch("sw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sw.Close(); err != nil {
			t.Error(err)
		}
	})
	a, b := sandboxtest.Host(t, "a"), sandboxtest.Host(t, "b")
	for i, h := range []*sandbox.Host{a, b} {
		if err := sw.Plug(h, "eth0"); err != nil {
			t.Fatal(err)
		}
		n := string(rune('1' + i))
		if err := h.Run("sh", "-c", "ip addr add 192.0.2."+n+"/24 dev eth0; ip addr add 2001:db8::"+n+"/64 dev eth0 nodad"); err != nil {
			t.Fatal(err)
		}
	}
	return sw, a, b
}

func TestTapSeesEachFrameOnSwitchOnceAndNothingElse(t *testing.T) {
	sw, a, b := plugged(t)
	tap, err := sw.NewTap()
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	ctx, stop := context.WithCancel(t.Context())
	var v4, v6 atomic.Int32
	done := make(chan error, 1)
	marker := []byte("\xca\xfe\xf0\x0d\xca\xfe\xf0\x0d")
	go func() {
		done <- tap.Run(ctx, func(frame []byte) {
			switch p := sandbox.ParseFrame(frame); {
			case !bytes.Contains(frame, marker):
			case p.Protocol == unix.IPPROTO_ICMP:
				v4.Add(1)
			case p.Protocol == unix.IPPROTO_ICMPV6:
				v6.Add(1)
			}
		})
	}()
	for _, dst := range []string{"192.0.2.2", "2001:db8::2"} {
		if err := a.Run("ping", "-q", "-c3", "-i0.01", "-W5", "-p", "cafef00d", dst); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Run("ping", "-c1", "-W5", "-p", "cafef00d", "127.0.0.1"); err != nil { // not on the switch
		t.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if v4.Load() != 6 || v6.Load() != 6 {
		t.Errorf("three echoes and replies of each family: saw %d IPv4 and %d IPv6 frames, want 6 and 6", v4.Load(), v6.Load())
	}
	if missed, err := tap.Missed(); err != nil || missed != 0 {
		t.Errorf("missed %d frames, %v", missed, err)
	}
}

func TestUnpluggedHostIsCutOffUntilReplugged(t *testing.T) {
	sw, a, b := plugged(t)
	if err := sw.Unplug(b); err != nil {
		t.Fatal(err)
	}
	if err := a.Run("ping", "-c1", "-W1", "192.0.2.2"); err == nil {
		t.Error("unplugged host answered")
	}
	if err := sw.Replug(b); err != nil {
		t.Fatal(err)
	}
	sandboxtest.Until(t, 20*time.Second, "the host to answer again", func() error {
		return a.Run("ping", "-c1", "-W1", "192.0.2.2")
	})
}

func FuzzParseFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(make([]byte, 12), 0x08, 0x00, 0x45))
	f.Add(append(append(make([]byte, 12), 0x86, 0xdd, 0x60, 0, 0, 0, 0, 16, 0, 64), make([]byte, 60)...))
	f.Add(append(append(make([]byte, 12), 0x08, 0x06, 0, 1, 8, 0), make([]byte, 24)...))
	f.Fuzz(func(t *testing.T, frame []byte) {
		p := sandbox.ParseFrame(frame)
		if p.Src.IsValid() != p.Dst.IsValid() {
			t.Errorf("one address without the other: %+v", p)
		}
	})
}
