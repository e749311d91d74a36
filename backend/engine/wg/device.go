package wg

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.zx2c4.com/wireguard/ratelimiter"

	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/state"
)

// Device is one WireGuard interface. It is configured through UAPI only: see Serve and
// Configure.
type Device struct {
	log    zerolog.Logger
	born   time.Time // one hour before New, so that no moment is zero
	tunnel tunnel
	binder binder
	keeps  bool // the kernel cannot take joined UDP
	hands  int  // beside the goroutine of each queue and socket: see crew

	self    atomic.Pointer[self]  // nil: no private key
	sockets atomic.Pointer[bound] // nil: not open
	linkMTU atomic.Int64          // bytes; 0: unknown
	routes  routes
	indices indices
	staged  budget
	letters chan letter
	loaded  atomic.Int64 // moment of the last sign of overload
	onLoad  atomic.Pointer[func()]
	limits  ratelimiter.Ratelimiter
	counters
	refusals

	mu    sync.RWMutex // guards what follows, and peer.allowed
	peers map[noise.Key]*peer
	port  uint16 // as configured; 0: any
	mark  uint32
	up    bool // the interface, when it was last looked at

	asleep  atomic.Bool        // the interface went down, and there are no sockets
	running atomic.Bool        // timers run only then
	leaving chan *state.Device // see leave
	closed  chan struct{}      // closed when Run ends
	movers  sync.WaitGroup     // goroutines that move packets
	workers sync.WaitGroup     // the others
}

// self is who this device is: a key pair, and the guard of messages to it, which the clerk
// alone uses.
type self struct {
	identity *noise.Identity
	guard    *noise.CookieChecker
}

// counters count what is dropped, for tests and debugging.
type counters struct {
	rejected   atomic.Uint64 // handshake messages
	replayed   atomic.Uint64
	misrouted  atomic.Uint64 // inner packets from an address that is not the peer's
	undecoded  atomic.Uint64 // transport messages without a session or authenticity
	unroutable atomic.Uint64 // packets from the TUN for no peer, or for one without an endpoint
	tooBig     atomic.Uint64 // packets from the TUN, for the interface
	cookies    atomic.Uint64 // sent
	handed     atomic.Uint64 // batches that hands worked on or could have
}

func newDevice(tunnel tunnel, binder binder, log zerolog.Logger) *Device {
	d := &Device{
		log: log, born: time.Now().Add(-time.Hour), tunnel: tunnel, binder: binder, hands: handsFor(runtime.GOMAXPROCS(0)),
		letters: make(chan letter, clerkQueue), peers: map[noise.Key]*peer{}, closed: make(chan struct{}), leaving: make(chan *state.Device),
	}
	return d
}

// now returns the moment it is.
func (d *Device) now() moment { return time.Since(d.born) }

// Run moves packets until ctx ends, which gives nil, or until the TUN device fails. It
// closes the TUN device and the sockets. Call it once.
func (d *Device) Run(ctx context.Context) error {
	d.limits.Init()
	defer d.limits.Close()
	_, _ = d.measure() // an interface that has gone is told by the TUN file
	if err := d.start(); err != nil {
		return errors.Join(err, d.tunnel.Close())
	}
	d.LinkChanged()
	queues := d.tunnel.queues()
	failed := make(chan error, len(queues))
	for _, q := range queues {
		d.movers.Go(func() { failed <- d.sendLoop(q) })
	}
	d.workers.Go(d.clerk)
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	case d.leaving <- nil:
		d.settle()
		left := d.export()
		defer func() { d.leaving <- left }()
	}
	d.stop()
	d.movers.Wait()
	d.workers.Wait()
	return err
}

// start opens the sockets, unless the device before left asleep, and lets timers run.
func (d *Device) start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running.Store(true)
	if b := d.sockets.Load(); b != nil { // those of the process before us
		d.listen(*b)
	} else if !d.asleep.Load() {
		if err := d.rebind(d.port); err != nil {
			return err
		}
	}
	for _, p := range d.peers {
		p.mu.Lock()
		p.schedule(d.now())
		p.mu.Unlock()
	}
	return nil
}

// stop closes everything and ends every conversation.
func (d *Device) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.running.Swap(false) {
		close(d.closed)
	}
	if err := d.tunnel.Close(); err != nil {
		d.log.Debug().Err(err).Msg("closed TUN device")
	}
	d.unbind()
	for _, p := range d.peers {
		p.remove()
	}
}

// rebind opens sockets on port and closes the ones before, or leaves that to when the device
// is on the network. The caller holds d.mu.
func (d *Device) rebind(port uint16) error {
	if !d.running.Load() || d.asleep.Load() && !d.up {
		d.port = port
		return nil
	}
	if old := d.sockets.Load(); old != nil && port != 0 && old.port == port {
		d.port = port
		return nil
	}
	next, err := d.binder.open(port, d.mark)
	if err != nil {
		return fmt.Errorf("listen on UDP port %d: %w", port, err)
	}
	d.unbind()
	d.port = next.port
	d.sockets.Store(&next)
	d.listen(next)
	for _, p := range d.peers {
		p.unstick()
	}
	d.wake()
	d.log.Info().Uint16("port", next.port).Msg("listening")
	return nil
}

// listen receives from open sockets. The caller holds d.mu.
func (d *Device) listen(b bound) {
	for _, s := range b.all() {
		d.movers.Go(func() { d.receiveLoop(s) })
	}
}

// unbind closes the sockets. The caller holds d.mu.
func (d *Device) unbind() {
	if old := d.sockets.Swap(nil); old != nil {
		for _, s := range old.all() {
			if err := s.Close(); err != nil {
				d.log.Debug().Err(err).Msg("closed UDP socket")
			}
		}
	}
}

// send sends messages, each through the socket of its family.
func (d *Device) send(out []conn.Outgoing) {
	b := d.sockets.Load()
	if b == nil {
		return
	}
	for len(out) > 0 {
		v4 := out[0].To.Addr().Is4()
		n := 1
		for n < len(out) && out[n].To.Addr().Is4() == v4 {
			n++
		}
		s := b.v6
		if v4 {
			s = b.v4
		}
		if s != nil {
			if err := s.Send(out[:n]); err != nil {
				d.log.Debug().Err(err).Msg("sent with errors")
			}
		}
		out = out[n:]
	}
}

// sendMessage sends a message that is not data, and reports whether the kernel refused the local
// address of the endpoint.
func (d *Device) sendMessage(to *endpoint, msg []byte) (sourceRefused bool) {
	out := make([]conn.Outgoing, 1)
	out[0].Start(to.remote, to.local, msg, 0)
	d.send(out)
	return out[0].SourceRefused
}

// OnLoad makes the data path call f, which must be quick, with each batch that is so large
// that more may be waiting.
func (d *Device) OnLoad(f func()) { d.onLoad.Store(&f) }

// noteLoad tells of a batch of that many bytes.
func (d *Device) noteLoad(size int) {
	if f := d.onLoad.Load(); f != nil && size >= flushAt {
		(*f)()
	}
}

// peer returns the configured peer with this key, or nil.
func (d *Device) peer(key noise.Key) *peer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.peers[key]
}
