package node

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// served returns whether the server answers on a connection before the deadline.
func served(t *testing.T, c net.Conn) bool {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		return false
	}
	n, err := c.Read(make([]byte, 512))
	return err == nil && n > 0
}

func TestClientWithManyConnectionsLocksOutItselfAlone(t *testing.T) {
	addr := startAPI(t, t.TempDir(), func() Report { return Report{} }, func() {})
	var open []net.Conn
	dial := func(source string) net.Conn {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
		c, err := d.DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
		return c
	}
	for i := range maxFromSource {
		if !served(t, dial("127.0.0.9")) {
			t.Fatalf("connection %d of a client: not served", i)
		}
	}
	if served(t, dial("127.0.0.9")) {
		t.Errorf("connection %d of a client is served", maxFromSource)
	}
	if !served(t, dial("127.0.0.10")) {
		t.Error("another client is locked out")
	}
	_ = open[0].Close()
	for deadline := time.Now().Add(5 * time.Second); !served(t, dial("127.0.0.9")); {
		if time.Now().After(deadline) {
			t.Fatal("a closed connection does not give its place back")
		}
	}
	for _, c := range open {
		_ = c.Close()
	}
}

func TestConnectionsAreLimitedInTotal(t *testing.T) {
	l := limitConnections(nil).(*limited)
	admitted := 0
	for i := range 2 * maxConnections {
		if l.admit(sourceOf(&net.TCPAddr{IP: net.IPv4(192, 0, 2, byte(i))})) {
			admitted++
		}
	}
	if admitted != maxConnections {
		t.Errorf("%d of %d sources admitted, want %d", admitted, 2*maxConnections, maxConnections)
	}
}

func TestSourcesAreHostsOfIPv4AndNetworksOfIPv6(t *testing.T) {
	for _, c := range []struct{ address, want string }{
		{"192.0.2.1", "192.0.2.1/32"}, {"::ffff:192.0.2.1", "192.0.2.1/32"}, {"2001:db8::1:2:3:4", "2001:db8::/64"},
	} {
		if got := sourceOf(&net.TCPAddr{IP: net.ParseIP(c.address)}).String(); got != c.want {
			t.Errorf("%s: got %s, want %s", c.address, got, c.want)
		}
	}
	if got := sourceOf(&net.UnixAddr{}); got.IsValid() {
		t.Errorf("an address of another form: got %v", got)
	}
}

// The socket's file has its mode when bind returns: no other user can connect between bind
// and a later chmod.
func TestSocketIsMadeClosed(t *testing.T) {
	dir := t.TempDir()
	old := unix.Umask(0)
	defer unix.Umask(old)
	var wide []os.FileMode
	done := make(chan struct{})
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if info, err := os.Lstat(socketPath(dir)); err == nil && info.Mode().Perm() != 0o600 {
				wide = append(wide, info.Mode())
			}
		}
	}()
	for range 200 {
		l, _, err := listeners(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	}
	stop()
	<-done
	if len(wide) > 0 {
		t.Errorf("the socket was seen with mode %v, %d times", wide[0], len(wide))
	}
}

func TestListenAddressThatIsTakenSaysSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, _, err := listeners(t.TempDir(), l.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "choose a free address") {
		t.Errorf("got %v", err)
	}
}
