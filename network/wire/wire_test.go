package wire_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/wire"
	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

// overlay is the filter of the tests in this file.
func overlay() wire.Filter {
	return wire.Filter{Networks: opt.Dual[netip.Prefix]{
		V4: opt.Some(netip.MustParsePrefix("10.244.0.0/16")),
		V6: opt.Some(netip.MustParsePrefix("fd44::/48")),
	}}
}

// pair joins two hosts, each with an underlay and an overlay address of both families.
func pair(t *testing.T) (a, b *sandbox.Host) {
	t.Helper()
	a, b = sandboxtest.Host(t, "a"), sandboxtest.Host(t, "b")
	if err := sandbox.Wire(a, "eth0", b, "eth0"); err != nil {
		t.Fatal(err)
	}
	for i, h := range []*sandbox.Host{a, b} {
		for _, address := range []string{"192.0.2.%d/24", "2001:db8::%d/64", "10.244.0.%d/16", "fd44::%d/48"} {
			args := strings.Fields("addr add " + fmt.Sprintf(address, i+1) + " dev eth0")
			if strings.Contains(address, ":") {
				args = append(args, "nodad")
			}
			if err := h.Run("ip", args...); err != nil {
				t.Fatal(err)
			}
		}
	}
	return a, b
}

// check runs wire.Check on a host while fn runs, and ends it when fn is done.
func check(t *testing.T, h *sandbox.Host, fn func()) wire.Result {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var result wire.Result
	done := make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		done <- h.Do(func() error {
			s, err := wire.OpenCheck(wire.Options{Interfaces: []string{"eth0"}, Filter: overlay(), For: time.Minute})
			close(ready)
			if err != nil {
				return err
			}
			result, err = s.Run(ctx)
			return err
		})
	}()
	<-ready
	fn()
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return result
}

func TestCheckSeesEveryClearPacketBothWays(t *testing.T) {
	a, b := pair(t)
	for _, h := range []*sandbox.Host{a, b} {
		result := check(t, h, func() {
			for _, dst := range []string{"10.244.0.2", "fd44::2"} {
				if err := a.Run("ping", "-n", "-c3", "-i0.01", "-W5", dst); err != nil {
					t.Fatal(err)
				}
			}
		})
		// Three questions and three answers in each family; neighbour discovery may add
		// to them.
		if result.Clear < 12 || !result.Proven() || result.Encrypted() {
			t.Errorf("on %s: %v: %+v", h.Name, result, result.Samples)
		}
	}
}

func TestCheckIsSilentOnUnderlayTraffic(t *testing.T) {
	a, _ := pair(t)
	result := check(t, a, func() {
		for _, dst := range []string{"192.0.2.2", "2001:db8::2"} {
			if err := a.Run("ping", "-n", "-c3", "-i0.01", "-W5", dst); err != nil {
				t.Fatal(err)
			}
		}
	})
	if !result.Encrypted() {
		t.Errorf("%v: %+v", result, result.Samples)
	}
}

func TestCanaryIsNotCountedAsClearByAnotherNode(t *testing.T) {
	a, b := pair(t)
	result := check(t, b, func() {
		other := check(t, a, func() {})
		if !other.Proven() {
			t.Errorf("a: %v", other)
		}
	})
	if result.Clear != 0 {
		t.Errorf("b counts a's canaries: %v: %+v", result, result.Samples)
	}
}

func TestCheckOfInterfaceThatIsDownProvesNothing(t *testing.T) {
	h := sandboxtest.Host(t, "lonely")
	if err := h.Run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1"); err != nil {
		t.Fatal(err)
	}
	err := h.Do(func() error {
		_, err := wire.Check(t.Context(), wire.Options{Interfaces: []string{"eth0"}, Filter: overlay(), For: time.Second})
		return err
	})
	if !errors.Is(err, unix.ENETDOWN) {
		t.Errorf("want %v, got %v", unix.ENETDOWN, err)
	}
	err = h.Do(func() error {
		_, err := wire.Check(t.Context(), wire.Options{Interfaces: []string{"nosuch"}, Filter: overlay(), For: time.Second})
		return err
	})
	if err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("no interface: %v", err)
	}
}
