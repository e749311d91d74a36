package backend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/prefix"
)

// live is a WireGuard device as it is now.
type live struct {
	key   PrivateKey
	port  uint16
	peers []livePeer // sorted by key
}

// wireguard is the wgctrl client, for kernel and userspace alike. Its calls end with
// their context, although wgctrl's do not: an engine that hangs must not hang its owner.
type wireguard struct {
	client *wgctrl.Client
	turn   chan struct{} // held by the running call; a hanging call keeps it
}

func openWireguard() (*wireguard, error) {
	client, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("open WireGuard configuration: %w", err)
	}
	return &wireguard{client: client, turn: make(chan struct{}, 1)}, nil
}

func (w *wireguard) close() error { return w.client.Close() }

// device lists the device; none where no device answers.
func (w *wireguard) device(ctx context.Context, name string) (opt.Option[live], error) {
	var found *wgtypes.Device
	var err error
	// An engine that ends, or hands over to another, hangs up: wgctrl makes that a reset or
	// an empty device. The next engine may be there already.
	for range 3 {
		err = w.call(ctx, func() (err error) {
			found, err = w.client.Device(name)
			return err
		})
		if !hungUp(found, err) {
			break
		}
	}
	if absent(err) {
		return opt.None[live](), nil
	}
	if err != nil {
		return opt.None[live](), fmt.Errorf("list WireGuard of %s: %w", name, err)
	}
	return opt.Some(liveOf(found)), nil
}

// absent reports whether err means that no WireGuard has that name. A userspace engine
// that was killed leaves a socket that refuses; an engine that ends closes it under the caller.
func absent(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) ||
		errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// hungUp reports whether an answer may be none because the engine hung up.
func hungUp(d *wgtypes.Device, err error) bool {
	if err != nil {
		return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
	}
	return d.PrivateKey == (wgtypes.Key{}) && d.ListenPort == 0 && len(d.Peers) == 0
}

// configure applies a configuration in a single step.
func (w *wireguard) configure(ctx context.Context, name string, c wgtypes.Config) error {
	if err := w.call(ctx, func() error { return w.client.ConfigureDevice(name, c) }); err != nil {
		return fmt.Errorf("configure WireGuard of %s: %w", name, err)
	}
	return nil
}

// call runs fn and waits for it or for ctx. A call that hangs is left behind and keeps its
// turn, so that there is never a second call beside it.
func (w *wireguard) call(ctx context.Context, fn func() error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, answerWithin, errNoAnswer)
	defer cancel()
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-w.turn }()
		done <- fn()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// liveOf converts a listing of wgctrl.
func liveOf(d *wgtypes.Device) live {
	out := live{port: uint16(d.ListenPort), peers: make([]livePeer, 0, len(d.Peers))}
	if d.PrivateKey != (wgtypes.Key{}) {
		out.key = privateKey(d.PrivateKey)
	}
	for _, p := range d.Peers {
		q := livePeer{
			key: p.PublicKey, psk: config.PresharedKey(p.PresharedKey), keepalive: p.PersistentKeepaliveInterval,
			handshake: p.LastHandshakeTime, rx: p.ReceiveBytes, tx: p.TransmitBytes,
		}
		if p.Endpoint != nil {
			q.endpoint = addrPortOf(p.Endpoint)
		}
		for _, ip := range p.AllowedIPs {
			if allowed, ok := prefix.FromIPNet(ip); ok {
				q.prefixes = append(q.prefixes, allowed)
			}
		}
		out.peers = append(out.peers, q)
	}
	sortPeers(out.peers)
	return out
}

// addrPortOf converts wgctrl's form of an endpoint.
func addrPortOf(a *net.UDPAddr) netip.AddrPort {
	at := a.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// configOf converts edits.
func configOf(edits []edit) wgtypes.Config {
	var c wgtypes.Config
	for _, e := range edits {
		c.Peers = append(c.Peers, peerConfig(e))
	}
	return c
}

// peerConfig converts an edit.
func peerConfig(e edit) wgtypes.PeerConfig {
	gone := e.verb == remove || e.verb == service && len(e.gain) == 0
	c := wgtypes.PeerConfig{PublicKey: e.key, Remove: gone, UpdateOnly: e.verb == change}
	if at, ok := e.endpoint.Get(); ok {
		c.Endpoint = net.UDPAddrFromAddrPort(at)
	}
	if psk, ok := e.psk.Get(); ok {
		c.PresharedKey = new(wgtypes.Key(psk))
	}
	if k, ok := e.keepalive.Get(); ok {
		c.PersistentKeepaliveInterval = &k
	}
	for _, p := range e.gain {
		c.AllowedIPs = append(c.AllowedIPs, *prefix.IPNet(p))
	}
	return c
}
