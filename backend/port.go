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
var ErrPortTaken = errors.New("another program listens on it: end that one (`ss -ulnp` names it), or choose another with --listen-port")

// portFree reports whether the device can have the UDP port, on both families, before
// anything is changed. A device that has it already is asked nothing, and neither is one
// whose engine runs but does not answer: it may be the one that has it.
func portFree(ctx context.Context, have state, port uint16) error {
	wg, answers := have.wg.Get()
	if answers && wg.port == port || !answers && have.engine.Present() {
		return nil
	}
	var listen net.ListenConfig
	for _, network := range []string{"udp4", "udp6"} {
		c, err := listen.ListenPacket(ctx, network, ":"+strconv.Itoa(int(port)))
		if errors.Is(err, unix.EADDRINUSE) {
			return portTaken(err, port)
		}
		if err == nil { // any other error, such as a host without IPv6, is not about the port
			_ = c.Close()
		}
	}
	return nil
}

// portTaken turns the ways in which WireGuard says "address in use" into ErrPortTaken. The
// userspace protocol has it as a negative number inside a text.
func portTaken(err error, port uint16) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, unix.EADDRINUSE) || strings.Contains(err.Error(), fmt.Sprintf("errno=-%d", int(unix.EADDRINUSE))) {
		return fmt.Errorf("UDP port %d: %w", port, ErrPortTaken)
	}
	return err
}
