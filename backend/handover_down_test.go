package backend_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox/linediff"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// sockets returns what ss(8) says of the node's UDP sockets, of both families.
func (n *node) sockets() string {
	n.t.Helper()
	return n.must("ss", "-Huln", "sport", "=", ":51820")
}

// silent waits until no socket of the node listens.
func (n *node) silent() {
	n.t.Helper()
	sandboxtest.Until(n.t, 20*time.Second, "closed sockets", func() error {
		if s := n.sockets(); s != "" {
			return errors.New(s)
		}
		return nil
	})
}

func TestHandOverWhileTheInterfaceIsDown(t *testing.T) {
	a, b, first := relayed(t, engine.Loden)
	a.must("ip", "link", "set", iface, "down")
	a.silent()
	second := a.relay(engine.Loden)
	second.says(t, started, 1)
	first.says(t, standingBy, 1)
	if s := a.sockets(); s != "" {
		t.Errorf("the next engine listens while the interface is down:\n%s", s)
	}
	config := opt.Some(a.config(b.peer(opt.V4)))
	want := []string{"device: add address fd44:1::/128 to loden0", "device: set loden0 up"} // and the port is right
	if diff := linediff.Of(strings.Join(want, "\n"), strings.Join(a.apply(config), "\n")); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	a.route() // the kernel drops an interface's routes when it goes down, and the IPv6 address
	a.reaches(b)
	b.reaches(a)

	// At about the moment at which it goes down: if the sockets still come along, they are closed.
	a.must("ip", "link", "set", iface, "down")
	third := a.relay(engine.Loden)
	third.says(t, started, 1)
	second.says(t, standingBy, 1)
	a.silent()
	a.apply(config)
	a.route()
	a.reaches(b)
}
