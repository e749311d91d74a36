package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrPortTaken means that another program has the UDP port.
var ErrPortTaken = errors.New("another program listens on it: end that program (`ss -ulnp` names it), or choose another port with --listen-port")

// portFree tries the UDP port on both families and gives it back.
func portFree(ctx context.Context, port uint16) error {
	var listen net.ListenConfig
	for _, network := range []string{"udp4", "udp6"} {
		c, err := listen.ListenPacket(ctx, network, ":"+strconv.Itoa(int(port)))
		if errors.Is(err, unix.EADDRINUSE) {
			return portTaken(err, port)
		}
		if err == nil { // another error, for example on a host without IPv6, is not about the port
			_ = c.Close()
		}
	}
	return nil
}

// portTaken turns the ways in which WireGuard says "address in use" into ErrPortTaken. The
// userspace protocol writes it as a negative number inside a text.
func portTaken(err error, port uint16) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.EADDRINUSE) || strings.Contains(err.Error(), fmt.Sprintf("errno=-%d", int(unix.EADDRINUSE))) {
		return fmt.Errorf("UDP port %d: %w", port, ErrPortTaken)
	}
	return err
}
