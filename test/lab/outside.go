package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox"
)

// Outside is a host without knowledge of the overlay: it has no route back to pods, and
// tells whoever asks which address it sees them as.
type Outside struct {
	*sandbox.Host
	Addrs opt.Dual[netip.Addr]
}

// newOutside makes the host and starts its answer service, which ends with ctx.
func (l *Lab) newOutside(ctx context.Context) error {
	host, err := sandbox.NewHost("outside")
	if err != nil {
		return err
	}
	addrs := addresses(internet(), Dual, outsideNumber)
	l.Outside = &Outside{Host: host}
	if err := plug(l.internet, host, "eth0", addrs); err != nil {
		return err
	}
	for family, a := range addrs.All() {
		l.Outside.Addrs = l.Outside.Addrs.With(family, a.Addr())
		conn, err := listenUDP(ctx, host, netip.AddrPortFrom(a.Addr(), answerPort))
		if err != nil {
			return err
		}
		l.watchers.Go(func() { answer(ctx, conn) })
	}
	return nil
}

// listenUDP opens a UDP socket on a host. Port 0 takes a free port.
func listenUDP(ctx context.Context, h *sandbox.Host, local netip.AddrPort) (*net.UDPConn, error) {
	var conn net.PacketConn
	err := h.Do(func() (err error) {
		conn, err = new(net.ListenConfig).ListenPacket(ctx, "udp", local.String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", h.Name, err)
	}
	return conn.(*net.UDPConn), nil // ListenPacket returns this type for "udp"
}

// answer tells every sender the address it was seen as, until ctx is done.
func answer(ctx context.Context, conn *net.UDPConn) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	buf := make([]byte, 64)
	for {
		_, from, err := conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = conn.WriteToUDPAddrPort([]byte(from.Addr().Unmap().String()), from) // the asker asks again
		}
	}
}

// SeenAs asks the outside host, from a pod, which address it sees. It asks again until
// there is an answer or ctx is done, and returns how long the answered question took.
func (l *Lab) SeenAs(ctx context.Context, pod *Pod, family opt.Family) (netip.Addr, time.Duration, error) {
	to, _ := l.Outside.Addrs.Of(family).Get() // the outside has both families
	local, ok := pod.Addrs.Of(family).Get()
	if !ok {
		return netip.Addr{}, 0, fmt.Errorf("%s has no %s address", pod.Name, family)
	}
	conn, err := listenUDP(ctx, pod.Host, netip.AddrPortFrom(local, 0))
	if err != nil {
		return netip.Addr{}, 0, err
	}
	defer conn.Close()
	buf := make([]byte, 64)
	for n := 0; ; n++ {
		sent := time.Now()
		_, err := conn.WriteToUDPAddrPort([]byte(strconv.Itoa(n)), netip.AddrPortFrom(to, answerPort))
		if err == nil {
			err = conn.SetReadDeadline(sent.Add(retry))
		}
		size := 0
		if err == nil {
			size, err = conn.Read(buf)
		}
		if err == nil {
			seen, err := netip.ParseAddr(string(buf[:size]))
			return seen, time.Since(sent), err
		}
		if !pause(ctx, time.Until(sent.Add(retry))) {
			return netip.Addr{}, 0, fmt.Errorf("ask outside from %s over %s: %w: %w", pod.Name, family, ctx.Err(), err)
		}
	}
}

// retry is after how long an unanswered question is asked again.
const retry = 250 * time.Millisecond

// pause waits, and reports false when ctx is done first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(max(d, 0)):
		return ctx.Err() == nil
	}
}
