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
	"github.com/loden-net/loden/backend/engine/wg/peer"
	"github.com/loden-net/loden/backend/engine/wg/stamps"
	"github.com/loden-net/loden/backend/engine/wg/state"
)

// Device is a WireGuard interface. It is configured through UAPI only: see Serve and Configure.
type Device struct {
	log              zerolog.Logger
	clock            *clock
	tunnel           tunnel
	binder           binder
	keepsUDP         bool // UDP packets are not joined: the kernel does not take joined UDP
	handshakeWorkers int
	noOffload        Offloads    // turned off by setting
	refusalLogged    atomic.Bool // see joins
	narrowLogged     atomic.Bool // see noteNarrowPath
	workers          int         // of each direction, beside the goroutine of each queue and socket: see workerPool

	local      peer.Local
	sockets    atomic.Pointer[bound] // nil: not open
	boundPort  atomic.Uint32         // of the sockets; 0: not open
	linkMTU    atomic.Int64          // bytes; 0: unknown
	linkIndex  atomic.Int64          // of the interface; 0: unknown
	routes     routes
	order      peerOrder
	handshakes chan handshakeItem
	loaded     atomic.Int64 // moment of the last sign of overload
	onLoad     atomic.Pointer[func()]
	limits     ratelimiter.Ratelimiter
	counters
	refusals

	routesChanged atomic.Uint64 // generation of the routing table; see checkSources
	unchecked     chan struct{} // an endpoint is to be checked

	mu    sync.RWMutex // guards the fields below, and member.allowed
	peers map[noise.Key]*member
	port  uint16 // as configured; 0: any
	mark  uint32
	up    bool // the interface, when it was last looked at

	former []*formerPort // guarded by mu

	stamps *stamps.File // nil: initiations are not recorded. Set by KeepStamps before Run

	running     atomic.Bool        // timers run only then
	begun       chan struct{}      // closed when Run has opened the sockets, or could not
	handingOver chan *state.Device // see HandOver
	closed      chan struct{}      // closed when Run ends
	movers      sync.WaitGroup     // goroutines that move packets
	others      sync.WaitGroup     // the other goroutines
}

func newDevice(tunnel tunnel, binder binder, log zerolog.Logger) *Device {
	return &Device{
		log: log, clock: newClock(time.Hour), tunnel: tunnel, binder: binder, workers: workersFor(runtime.GOMAXPROCS(0)),
		handshakeWorkers: handshakeWorkersFor(runtime.GOMAXPROCS(0)),
		handshakes:       make(chan handshakeItem, handshakeQueueSize), peers: map[noise.Key]*member{},
		begun: make(chan struct{}), closed: make(chan struct{}), handingOver: make(chan *state.Device),
		unchecked: make(chan struct{}, 1),
	}
}

// now returns the present moment. The clock started at an hour, so that no moment is zero.
func (d *Device) now() moment { return d.clock.now() }

// time returns the present time on both clocks.
func (d *Device) time() peer.Time { return peer.Time{Now: d.now(), Wall: time.Now()} }

// Run moves packets until ctx ends, which gives nil, or until the TUN device fails. It closes the
// TUN device and the sockets. Call it once.
func (d *Device) Run(ctx context.Context) error {
	d.limits.Init()
	defer d.limits.Close()
	_, _ = d.measure() // reading the TUN file reports an interface that has gone
	if err := d.start(); err != nil {
		return errors.Join(err, d.tunnel.Close())
	}
	d.LinkChanged()
	queues := d.tunnel.queues()
	failed := make(chan error, len(queues))
	for _, q := range queues {
		d.movers.Go(func() { failed <- d.sendLoop(q) })
	}
	for range d.handshakeWorkers {
		d.others.Go(d.handshakeWorker)
	}
	if table, err := d.binder.routes(); err != nil {
		d.log.Warn().Err(err).Msg("cannot watch routes: after a change of route, packets may leave from the address before for up to 15 s")
	} else if table != nil {
		d.others.Go(func() { d.checkSources(table) })
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	case d.handingOver <- nil:
		d.drain()
		exported := d.export()
		defer func() { d.handingOver <- exported }()
	}
	d.stop()
	d.movers.Wait()
	d.others.Wait()
	return err
}

// start opens the sockets, unless the device before was handed over while its interface was down,
// and lets timers run.
func (d *Device) start() error {
	defer close(d.begun)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running.Store(true)
	if b := d.sockets.Load(); b != nil { // opened by the process before
		d.boundPort.Store(uint32(b.port))
		d.listen(*b)
	} else if !d.local.Down() {
		if err := d.rebind(d.port); err != nil {
			return err
		}
	}
	for _, p := range d.peers {
		p.Schedule(d.now())
	}
	return nil
}

// stop closes everything and ends every peer.
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
		p.Remove()
	}
}

// rebind opens sockets on port and retires the sockets before. While the interface is down it only
// notes the port. The caller holds d.mu.
func (d *Device) rebind(port uint16) error {
	if !d.running.Load() || d.local.Down() && !d.up {
		d.port = port
		return nil
	}
	if old := d.sockets.Load(); old != nil && port != 0 && old.port == port {
		d.port = port
		return nil
	}
	d.closeFormer(func(f *formerPort) bool { return f.port == port })
	next, err := d.binder.open(port, d.mark)
	if err != nil {
		return fmt.Errorf("listen on UDP port %d: %w", port, err)
	}
	d.applyOffloads(next)
	d.port = next.port
	before := d.sockets.Swap(&next)
	d.boundPort.Store(uint32(next.port))
	d.listen(next)
	for _, p := range d.peers {
		p.ClearSource()
	}
	if before != nil {
		d.retire(*before)
	}
	d.bringUp()
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
	d.closeFormer(func(*formerPort) bool { return true })
	if old := d.sockets.Swap(nil); old != nil {
		d.closeSockets(*old)
	}
}

// send sends trains, each through the socket of its address family.
func (d *Device) send(out []conn.Outgoing) {
	b := d.sockets.Load()
	if b == nil {
		for i := range out {
			out[i].NoRoom = true
			d.counters.noSocket.Add(uint64(out[i].Count))
		}
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
		switch {
		case s == nil:
			for i := range out[:n] {
				out[i].NoRoom = true
				d.counters.noSocket.Add(uint64(out[i].Count))
			}
		default:
			if err := s.Send(out[:n]); err != nil {
				d.log.Debug().Err(err).Msg("sent with errors")
			}
		}
		out = out[n:]
	}
}

// handshakeClass is the traffic class of initiations and responses: AF41, so that a loaded path
// does not delay them behind data. It is HANDSHAKE_DSCP of the kernel (messages.h).
const handshakeClass = 0x88

// sendMessage sends a message that is not data.
func (d *Device) sendMessage(m peer.Datagram) conn.Outgoing {
	class := uint8(0)
	if kind := m.Message[0]; kind == noise.TypeInitiation || kind == noise.TypeResponse {
		class = handshakeClass
	}
	out := make([]conn.Outgoing, 1)
	out[0].Start(m.To.Remote, m.To.Source, m.Message, class)
	d.send(out)
	if out[0].Sent == 0 && !out[0].NoRoom {
		d.counters.unsent.Add(1)
	}
	return out[0]
}

// OnLoad makes the data path call f, which must be quick, with each batch that is so large that
// more packets may be waiting.
func (d *Device) OnLoad(f func()) { d.onLoad.Store(&f) }

// noteLoad tells OnLoad's function of a batch of size bytes.
func (d *Device) noteLoad(size int) {
	if f := d.onLoad.Load(); f != nil && size >= flushAt {
		(*f)()
	}
}

// find returns the configured peer with this key, or nil.
func (d *Device) find(key noise.Key) *peer.Peer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if m := d.peers[key]; m != nil {
		return &m.Peer
	}
	return nil
}
