package peer

import (
	"net/netip"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/config/opt"
)

// command carries out a command of a transcript.
func (w *world) command(words []string) {
	if h := w.hosts[words[0]]; h != nil && len(words) > 1 {
		h.command(words[1], words[2:])
		return
	}
	switch verb, args := words[0], words[1:]; verb {
	case "wait":
		w.run(w.now + w.duration(args[0]))
	case "lose": // everything in a direction, or messages of a kind
		w.lose[key(args)] = true
	case "lose-next":
		w.loseOne[key(args)] = true
	case "deliver":
		delete(w.lose, key(args))
	case "replay": // the last message of a kind, optionally from another address
		f, ok := w.seen[key(args[:2])]
		if !ok {
			w.t.Fatalf("no message %q was sent", key(args[:2]))
		}
		f.at = w.now + latency
		if len(args) > 2 {
			f.source = w.address(args[2])
		}
		w.flying = append(w.flying, f)
		w.run(w.now + latency)
	default:
		w.t.Fatalf("unknown command %q", verb)
	}
}

// key joins a direction and a kind of message.
func key(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	return args[0] + " " + args[1]
}

func (w *world) duration(text string) time.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

func (w *world) address(text string) netip.AddrPort {
	a, err := netip.ParseAddrPort(text)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// command carries out a command of a host.
func (h *host) command(verb string, args []string) {
	w, p := h.world, h.peer
	switch verb {
	case "endpoint": // as wg set … endpoint
		p.Configure(Settings{Endpoint: opt.Some(w.address(args[0]))}, w.now)
		h.show()
	case "keepalive": // as wg set … persistent-keepalive
		p.Configure(Settings{Keepalive: opt.Some(w.duration(args[0]))}, w.now)
	case "preshared":
		p.Configure(Settings{PresharedKey: opt.Some(noise.Key{0: args[0][0]})}, w.now)
	case "sends": // a packet comes from the TUN device
		h.sends()
	case "moves": // the host has another address
		h.address = w.address(args[0])
	case "new-key": // this side has another private key, which the other side knows
		h.private[2]++
		if err := h.SetPrivateKey(h.private); err != nil {
			w.t.Fatal(err)
		}
		h.peer.Zero(w.now)
		o := h.other
		to := o.peer.Endpoint()
		o.peer.Remove()
		o.peer = new(Peer)
		o.peer.Init(&o.Local, h.Identity().Public(), o)
		if to != nil {
			o.peer.Configure(Settings{Endpoint: opt.Some(to.Remote)}, w.now)
		}
		o.show()
		h.show()
	case "restarts": // the device is made anew with the same configuration
		to := p.Endpoint()
		p.Remove()
		h.peer = new(Peer)
		h.peer.Init(&h.Local, p.PublicKey(), h)
		h.peer.Configure(Settings{Endpoint: opt.Some(to.Remote)}, w.now)
		h.show()
	case "loaded":
		h.loaded = true
	case "idle":
		h.loaded = false
	case "hand-over":
		h.handOver()
		h.show()
	case "down":
		h.SetDown(true)
		p.Down()
		h.show()
	case "up":
		h.SetDown(false)
		h.act(p.Up(w.now))
	case "counter": // the keypair has sent almost as many messages as it may
		p.Current().counter.Store(rekeyAfterMessages)
	default:
		w.t.Fatalf("unknown command %q of %s", verb, h.name)
	}
}

// sends carries a packet from the TUN device, as the device's sender does.
func (h *host) sends() {
	packet := make([]byte, 16)
	k := h.peer.Current()
	if k == nil || !k.Usable(h.world.now) {
		h.act(h.peer.Stage(packet, h.world.now))
		return
	}
	if h.peer.HasStaged() {
		h.flush()
	}
	h.seal(k, packet)
	h.show()
}
