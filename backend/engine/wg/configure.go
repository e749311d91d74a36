package wg

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/peer"
	"github.com/loden-net/loden/backend/engine/wg/uapi"
	"github.com/loden-net/loden/config/opt"
)

// Serve speaks UAPI with a client until the client hangs up or sends a wrong request, and closes
// c. Its errors are the connection's.
func (d *Device) Serve(c net.Conn) error { return uapi.Serve(c, d, d.log) }

// Configure reads the lines of a "set" request, up to the empty line, and applies them all, or none
// if a line is wrong. Errors carry a unix.Errno.
func (d *Device) Configure(r io.Reader) error {
	want, err := uapi.Parse(r)
	if err != nil {
		return err
	}
	defer want.Wipe()
	d.noteWork(len(want.Peers))
	return d.apply(want)
}

// noteWork tells OnLoad's function of work of the control side with so many peers, when it takes so
// long that packets need not wait for it on a single processor.
func (d *Device) noteWork(peers int) {
	if f := d.onLoad.Load(); f != nil && peers >= manyPeers {
		(*f)()
	}
}

// Describe writes the lines that answer a "get" request, without errno. It makes the text of a few
// peers at a time, so that a dump of 10,000 peers needs neither 4 MB nor the lock for long. No lock is
// held while it writes: a client that does not read stops no other client. A peer that is added
// meanwhile is not in the answer.
func (d *Device) Describe(w io.Writer) error {
	text := bytes.NewBuffer(make([]byte, 0, textSize*dumpedAtOnce))
	defer func() { clear(text.Bytes()[:text.Cap()]) }() // keys stood there
	d.beginDump(text)
	peers := d.sorted()
	d.noteWork(len(peers))
	for {
		_, err := text.WriteTo(w)
		if err != nil || len(peers) == 0 {
			return err
		}
		text.Reset()
		n := min(dumpedAtOnce, len(peers))
		d.dump(text, peers[:n])
		peers = peers[n:]
	}
}

// beginDump writes the lines of the device.
func (d *Device) beginDump(w *bytes.Buffer) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	i := uapi.Interface{ListenPort: d.shownPort(), Mark: d.mark}
	if id := d.local.Identity(); id != nil {
		i.PrivateKey = id.Private()
	}
	i.Format(w)
}

// dump writes the lines of those peers that are still configured.
func (d *Device) dump(w *bytes.Buffer, peers []*member) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, m := range peers {
		if d.peers[m.PublicKey()] != m {
			continue
		}
		s := m.Status()
		p := uapi.Peer{
			PublicKey: m.PublicKey(), PresharedKey: s.PresharedKey, LastHandshake: s.LastHandshake,
			Sent: s.Sent, Received: s.Received, Keepalive: s.Keepalive, AllowedIPs: m.allowed,
		}
		if to, ok := s.Endpoint.Get(); ok {
			p.Endpoint = opt.Some(netip.AddrPortFrom(d.named(to.Addr()), to.Port()))
		}
		p.Format(w)
	}
}

// apply carries out a request. The steps that can fail come first.
func (d *Device) apply(want *uapi.Request) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.resolve(want); err != nil {
		return err
	}
	if port, ok := want.ListenPort.Get(); ok {
		if err := d.rebind(port); err != nil {
			return err
		}
	}
	if mark, ok := want.Mark.Get(); ok {
		if err := d.setMark(mark); err != nil {
			return err
		}
	}
	e := d.routes.begin()
	defer e.commit()
	if private, ok := want.PrivateKey.Get(); ok {
		if err := d.setPrivateKey(private, e); err != nil {
			return err
		}
	}
	if want.ReplacePeers {
		for _, p := range d.peers {
			d.drop(p, e)
		}
	}
	for i := range want.Peers {
		d.applyPeer(&want.Peers[i], e)
	}
	return nil
}

// setMark gives the firewall mark to the datagrams that the sockets send from now on. The caller
// holds d.mu.
func (d *Device) setMark(mark uint32) error {
	if mark == d.mark {
		return nil
	}
	if b := d.sockets.Load(); b != nil {
		for _, s := range b.all() {
			if err := s.SetMark(mark); err != nil {
				return fmt.Errorf("set fwmark: %w", err)
			}
		}
	}
	d.mark = mark
	for _, p := range d.peers {
		p.ClearSource() // the mark may choose another route
	}
	return nil
}

// applyPeer adds, changes or removes one peer. The caller holds d.mu.
func (d *Device) applyPeer(want *uapi.PeerRequest, e *edit) {
	p := d.peers[want.PublicKey]
	if want.Remove {
		if p != nil {
			d.drop(p, e)
		}
		return
	}
	if p == nil {
		id := d.local.Identity()
		if want.UpdateOnly || (id != nil && id.Public() == want.PublicKey) {
			return
		}
		p = newMember(d, want.PublicKey)
		p.SetNewest(d.stamps.Take(want.PublicKey))
		d.peers[want.PublicKey] = p
		d.order.changed()
	}
	if want.ReplaceAllowedIPs {
		for _, prefix := range p.allowed {
			e.remove(prefix)
		}
		p.allowed = nil
	}
	for _, a := range want.AllowedIPs {
		if a.Remove {
			d.disallow(p, a.Prefix, e)
		} else {
			d.allow(p, a.Prefix, e)
		}
	}
	settings := peer.Settings{PresharedKey: want.PresharedKey, Endpoint: want.Endpoint}
	if seconds, ok := want.Keepalive.Get(); ok {
		settings.Keepalive = opt.Some(time.Duration(seconds) * time.Second)
	}
	p.Configure(settings, d.now())
}

// allow routes prefix to p, and takes it away from the peer that had it. The caller holds d.mu.
func (d *Device) allow(p *member, prefix netip.Prefix, e *edit) {
	switch before := e.owner(prefix); before {
	case p:
		return
	case nil:
	default:
		before.allowed = slices.DeleteFunc(before.allowed, func(x netip.Prefix) bool { return x == prefix })
	}
	p.allowed = append(p.allowed, prefix)
	e.insert(prefix, p)
}

// disallow takes prefix away from p if it has it. The caller holds d.mu.
func (d *Device) disallow(p *member, prefix netip.Prefix, e *edit) {
	if e.owner(prefix) != p {
		return
	}
	p.allowed = slices.DeleteFunc(p.allowed, func(x netip.Prefix) bool { return x == prefix })
	e.remove(prefix)
}

// drop removes a peer from the device. The caller holds d.mu.
func (d *Device) drop(p *member, e *edit) {
	for _, prefix := range p.allowed {
		e.remove(prefix)
	}
	p.allowed = nil
	delete(d.peers, p.PublicKey())
	d.order.changed()
	if p.Newest() != (tai64n.Timestamp{}) {
		d.stamps.Changed(p.PublicKey()) // configured anew, it starts without
	}
	p.Remove()
}

// setPrivateKey makes the private key the device's identity; a zero key leaves it without. The
// caller holds d.mu.
func (d *Device) setPrivateKey(private noise.Key, e *edit) error {
	before := d.local.Identity()
	if before != nil && !private.IsZero() {
		if same, err := noise.NewIdentity(private); err == nil && same.Public() == before.Public() {
			return nil
		}
	}
	if err := d.local.SetPrivateKey(private); err != nil {
		return fmt.Errorf("%w: %w", err, unix.EINVAL)
	}
	if id := d.local.Identity(); id != nil {
		if p := d.peers[id.Public()]; p != nil {
			d.drop(p, e) // a node is not its own peer
		}
	}
	for _, p := range d.peers {
		p.Zero(d.now())
	}
	return nil
}
