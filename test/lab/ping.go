package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox"
)

// marker is in the payload of everything that pods send each other. Whoever sees it on a
// wire sees plaintext, however it is wrapped.
const marker = "LODEN-LAB-PLAINTEXT-MARKER"

// Ping sends ICMP echoes of a family between two hosts of the lab until an echo is answered
// or ctx is done, and returns how long the answered one took. size is of the whole IP
// packet in bytes; it is never fragmented on the way out unless the sender's MTU asks so.
func Ping(ctx context.Context, from *sandbox.Host, to netip.Addr, size int) (time.Duration, error) {
	p, err := newPinger(from, to, size)
	if err != nil {
		return 0, err
	}
	defer p.conn.Close()
	for {
		sent := time.Now()
		err := p.once(sent.Add(retry))
		if err == nil {
			return time.Since(sent), nil
		}
		if !pause(ctx, time.Until(sent.Add(retry))) {
			return 0, fmt.Errorf("ping %s from %s: %w: %w", to, from.Name, ctx.Err(), err)
		}
	}
}

// pinger is a conversation of echoes.
type pinger struct {
	conn    *icmp.PacketConn
	to      net.IPAddr
	message icmp.Message
	echo    icmp.Echo
	proto   int       // for parsing: 1 or 58
	answer  icmp.Type // type of an answer
}

func newPinger(from *sandbox.Host, to netip.Addr, size int) (*pinger, error) {
	p := &pinger{to: net.IPAddr{IP: to.AsSlice()}, proto: 1, answer: ipv4.ICMPTypeEchoReply}
	network, header := "ip4:icmp", 20+8
	p.message.Type = ipv4.ICMPTypeEcho
	if opt.FamilyOf(to) == opt.V6 {
		network, header = "ip6:ipv6-icmp", 40+8
		p.message.Type, p.answer, p.proto = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58
	}
	data := []byte(fmt.Sprintf("%s %016x ", marker, rand.Uint64()))
	if pad := size - header - len(data); pad > 0 {
		data = append(data, bytes.Repeat([]byte("."), pad)...)
	}
	p.echo = icmp.Echo{ID: rand.IntN(1 << 16), Data: data}
	err := from.Do(func() (err error) {
		p.conn, err = icmp.ListenPacket(network, "")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open ping socket on %s: %w", from.Name, err)
	}
	return p, nil
}

// once sends an echo and waits for its answer.
func (p *pinger) once(deadline time.Time) error {
	p.echo.Seq++
	p.message.Body = &p.echo
	packet, err := p.message.Marshal(nil) // the kernel fills in ICMPv6's checksum
	if err != nil {
		return err
	}
	if _, err := p.conn.WriteTo(packet, &p.to); err != nil {
		return err
	}
	if err := p.conn.SetReadDeadline(deadline); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := p.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return errors.New("no answer")
		}
		if err != nil {
			return err
		}
		got, err := icmp.ParseMessage(p.proto, buf[:n])
		if err != nil || got.Type != p.answer {
			continue
		}
		echo, ok := got.Body.(*icmp.Echo)
		if ok && echo.ID == p.echo.ID && echo.Seq == p.echo.Seq && bytes.Equal(echo.Data, p.echo.Data) {
			return nil
		}
	}
}
