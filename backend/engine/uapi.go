package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"
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

// acceptUAPI serves every connection with handle, each on its own goroutine, until ctx ends,
// and waits for all handlers. While the listener fails, for example because no descriptor is
// left, it logs once and tries again: clients wait in the socket's queue.
func acceptUAPI(ctx context.Context, log zerolog.Logger, listener net.Listener, handle func(net.Conn)) {
	open := connections{limit: maxConnections()}
	defer open.closeAll()
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	again := retry{log: log, step: "UAPI connections are not accepted: raise the limit of open files, or end clients that leave connections open"}
	for {
		c, err := listener.Accept()
		switch {
		case err == nil:
			again.succeeded()
			open.serve(c, handle)
		case ctx.Err() != nil || !again.after(ctx, err):
			return
		}
	}
}
