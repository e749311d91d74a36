package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// socketDir is where wg(8) and wgctrl look for userspace implementations.
const socketDir = "/var/run/wireguard"

// SocketPath returns where the engine for an interface listens: the place of the
// cross-platform userspace protocol (https://www.wireguard.com/xplatform/).
func SocketPath(iface string) string { return filepath.Join(socketDir, iface+".sock") }

// listenUAPI listens on the interface's UAPI socket, for root alone. It replaces the socket of a
// killed engine, and fails while a process listens on it.
func listenUAPI(iface string) (*net.UnixListener, error) {
	path := SocketPath(iface)
	if err := os.MkdirAll(socketDir, 0o755); err != nil {
		return nil, fmt.Errorf("listen for configuration: %w", err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("listen on %s: another WireGuard process serves this interface: end it first", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen for configuration: %w", err)
	}
	old := unix.Umask(0o077) // other users must not be able to connect, not even for a moment
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen for configuration: %w", err)
	}
	return listener, nil
}

// acceptUAPI serves every connection with handle, each on its own goroutine, until ctx ends or
// the listener fails. It waits for all handlers.
func acceptUAPI(ctx context.Context, listener net.Listener, handle func(net.Conn)) error {
	var open connections
	defer open.closeAll()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		c, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept configuration: %w", err)
		}
		open.serve(c, handle)
	}
}

// connections are the open UAPI connections. The zero value is empty.
type connections struct {
	busy sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]struct{} // guarded by mu
}

func (s *connections) serve(c net.Conn, handle func(net.Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[net.Conn]struct{}{}
	}
	s.open[c] = struct{}{}
	s.busy.Go(func() {
		defer s.forget(c)
		handle(c)
	})
}

func (s *connections) forget(c net.Conn) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// finishWithin is how long an unfinished answer may take when its engine ends.
const finishWithin = 200 * time.Millisecond

// closeAll ends every connection and waits for their handlers. A handler that is writing its
// answer may finish it: wgctrl takes half an answer for a whole answer.
func (s *connections) closeAll() {
	s.mu.Lock()
	for c := range s.open {
		_ = errors.Join(c.SetReadDeadline(time.Unix(1, 0)), c.SetWriteDeadline(time.Now().Add(finishWithin)))
	}
	s.mu.Unlock()
	s.busy.Wait()
}
