// Package peer owns the WireGuard protocol between a device and its peers: handshakes, keypairs,
// replay windows, timers, staged packets and the indices of messages. It is pure: messages and
// the time come in; datagrams to send, staged packets and the moment of the next timer go out. It
// knows no socket, no clock, no goroutine and no TUN device.
//
//	                 Stage, RequestHandshake, NoteSent,
//	                 NoteReceived, Confirm                     SetAlarm(deadline)
//	data path ─────────────────────────────────────► Peer ───────────────────────► timer
//	                 Receive(handshake message)       │ ▲                            │
//	handshake worker ──────► Local ──────────────────►│ └────────── Tick(time) ──────┘
//	                                                  ▼
//	                                 Actions: datagrams, "flush the staged packets"
//
// A configured peer is a compact record. The state of a peer in use (handshake, keypairs, staged
// packets) is created with the first packet or initiation and is erased when its keys expire.
//
// A Peer is safe for concurrent use: the data path reads atomics; the rest is behind a mutex of
// the peer that no method holds while a datagram is sent.
//
// White paper: Donenfeld, "WireGuard: Next Generation Kernel Network Tunnel", 2020. Section
// numbers in comments are sections of that text.
package peer

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/config/opt"
)

// Datagram is a message that is not data, on its way out. The device calls CountSent when the kernel
// has taken it.
type Datagram struct {
	To      *Endpoint
	Message []byte
}

// Actions is the work that a call leaves to the device.
type Actions struct {
	Datagrams []Datagram // to be sent in this order
	Flush     bool       // the peer has a keypair now: send its staged packets
}

// Alarm is the timer of a peer. SetAlarm makes the device call Peer.Tick at that moment, or never
// when it is 0; it replaces the moment before. The peer is locked meanwhile: SetAlarm must not
// call it.
type Alarm interface{ SetAlarm(at Moment) }

// Peer is a configured peer. Init makes it ready for use.
type Peer struct {
	local *Local
	alarm Alarm
	key   noise.Key

	// Read and written by the data path, without a lock.
	endpoint      atomic.Pointer[Endpoint] // nil: unknown
	current       atomic.Pointer[Keypair]  // the keypair to send with; nil: none
	hasStaged     atomic.Bool              // packets are staged, or are still being sent
	sentBytes     atomic.Uint64
	receivedBytes atomic.Uint64
	sentAt        atomic.Int64 // moment of the last authenticated message sent
	receivedAt    atomic.Int64 // moment of the last authenticated message received
	owedSince     atomic.Int64 // data was received and nothing sent since this moment; 0: no answer is owed
	awaitSince    atomic.Int64 // data was sent and nothing received since this moment; 0: no answer is awaited
	wantHandshake atomic.Bool  // a handshake should begin
	deadline      atomic.Int64 // moment of the alarm; 0: not set

	flushing sync.Mutex // held while staged packets are sent; p.mu may be taken after it

	mu         sync.Mutex // guards the fields below
	preshared  noise.Key
	keepalive  time.Duration    // persistent keepalive interval; 0: none
	newest     tai64n.Timestamp // of the initiations accepted; kept as long as the peer is: section 5.1
	readAt     Moment           // when the last initiation was accepted
	finishedAt time.Time        // of the last handshake, on the wall clock
	active     *active          // nil: idle
	cookie     *noise.Stamp     // of an idle peer that gave a cookie: it proves this address, whatever ended the handshake
	persistAt  Moment           // when the last persistent keepalive was tried
	removed    bool
	out        []Datagram // of the call that holds mu

	// keepaliveDue makes the next Tick, which is due at once, send a persistent keepalive: an event
	// has made waiting for the interval pointless.
	keepaliveDue bool
}

// Init makes p the peer of l with that public key, idle and without settings.
func (p *Peer) Init(l *Local, public noise.Key, alarm Alarm) {
	p.local, p.key, p.alarm = l, public, alarm
}

// PublicKey returns the key that identifies the peer.
func (p *Peer) PublicKey() noise.Key { return p.key }

// Current returns the keypair to send with, or nil. It may have expired: see Keypair.Usable.
func (p *Peer) Current() *Keypair { return p.current.Load() }

// Endpoint returns where the peer is reached, or nil when that is unknown.
func (p *Peer) Endpoint() *Endpoint { return p.endpoint.Load() }

// Settings are changes of a peer's configuration. A None leaves a setting as it is.
type Settings struct {
	PresharedKey opt.Option[noise.Key] // zero: none
	Endpoint     opt.Option[netip.AddrPort]
	Keepalive    opt.Option[time.Duration] // 0: no persistent keepalive
}

// Newest returns the newest timestamp of the peer's accepted initiations; zero: none.
func (p *Peer) Newest() tai64n.Timestamp {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.newest
}

// SetNewest makes a new peer refuse initiations that are not newer than a timestamp: a device before
// accepted it.
func (p *Peer) SetNewest(stamp tai64n.Timestamp) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.newest = stamp
}

// Idle reports whether the peer has no handshake, no keypairs and no staged packets.
func (p *Peer) Idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.active == nil
}

// Configure changes settings.
func (p *Peer) Configure(s Settings, now Moment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if key, ok := s.PresharedKey.Get(); ok {
		p.preshared = key
	}
	if interval, ok := s.Keepalive.Get(); ok {
		p.keepaliveDue = p.keepaliveDue || (p.keepalive == 0 && interval != 0)
		p.keepalive = interval
		if interval == 0 {
			p.persistAt, p.keepaliveDue = 0, false
		}
	}
	if remote, ok := s.Endpoint.Get(); ok {
		p.setEndpoint(remote, now)
	}
	p.schedule(now)
}

// setEndpoint sets the address of the peer and forgets the local address: an operator who sets the
// endpoint anew has a reason. With another address a handshake begins at once when the peer has
// persistent keepalive, staged packets, or a handshake under way, which went to the address before.
// The caller holds p.mu and schedules.
func (p *Peer) setEndpoint(remote netip.AddrPort, now Moment) {
	before := p.endpoint.Load()
	if before != nil && before.Remote == remote && !before.Local.IsValid() {
		return
	}
	p.endpoint.Store(&Endpoint{Remote: remote})
	if before != nil && before.Remote == remote {
		return
	}
	a := p.active
	if p.keepalive == 0 && !p.wantHandshake.Load() && (a == nil || a.initiator == nil) {
		return // with staged packets a handshake is wanted or under way
	}
	p.wantHandshake.Store(true)
	if a != nil {
		p.dropHandshake()
		p.handshakeSoon(now)
	}
}

// Status is the part of a peer that "get" shows.
type Status struct {
	PresharedKey   noise.Key
	Endpoint       opt.Option[netip.AddrPort]
	LastHandshake  time.Time // zero: none yet
	Sent, Received uint64    // bytes
	Keepalive      time.Duration
}

// Status returns the present status.
func (p *Peer) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{
		PresharedKey: p.preshared, LastHandshake: p.finishedAt, Sent: p.sentBytes.Load(), Received: p.receivedBytes.Load(), Keepalive: p.keepalive,
	}
	if to := p.endpoint.Load(); to != nil {
		s.Endpoint = opt.Some(to.Remote)
	}
	return s
}

// Stage keeps a packet, virtio header first, until there is a keypair, and asks for a handshake.
// With Actions.Flush the keypair has come meanwhile.
func (p *Peer) Stage(packet []byte, now Moment) Actions {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.disabled() {
		p.local.budget.expired.Add(1)
		return Actions{}
	}
	a, err := p.activate(now)
	if err != nil { // no private key yet, or an invalid public key: no packet can be sent
		p.local.budget.keyless.Add(1)
		return Actions{}
	}
	a.staged.add(packet, &p.local.budget)
	p.hasStaged.Store(len(a.staged.packets) > 0)
	if k := p.current.Load(); k != nil && k.Usable(now) {
		return Actions{Flush: true}
	}
	p.wantHandshake.Store(true)
	p.schedule(now)
	return Actions{}
}

// HasStaged reports whether packets are staged: FlushStaged sends them.
func (p *Peer) HasStaged() bool { return p.hasStaged.Load() }

// FlushStaged calls send with the staged packets and the keypair to send them with, if there are
// both. A second caller waits until the first is done, so that its packets do not overtake the
// staged packets.
func (p *Peer) FlushStaged(now func() Moment, send func(k *Keypair, packets [][]byte)) {
	p.flushing.Lock()
	defer p.flushing.Unlock()
	k := p.current.Load()
	if k == nil || !k.Usable(now()) {
		return
	}
	send(k, p.takeStaged())
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hasStaged.Store(p.active != nil && len(p.active.staged.packets) > 0)
}

func (p *Peer) takeStaged() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.active == nil {
		return nil
	}
	return p.active.staged.take(&p.local.budget)
}

// Zero erases the keypairs, the pending handshake and the staged packets: the device has another
// private key. A peer with persistent keepalive is called at once.
func (p *Peer) Zero(now Moment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.zero()
	p.keepaliveDue = p.keepalive != 0
	p.schedule(now)
}

// Down erases the keypairs, the pending handshake and the staged packets, and stops the timer:
// the interface is down.
func (p *Peer) Down() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.zero()
	p.wantHandshake.Store(false)
	p.setAlarm(0)
}

// Up lets the peer go on after Down. A peer with persistent keepalive hears from this side at
// once; a peer without waits for the next packet.
func (p *Peer) Up(now Moment) Actions {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keepalive != 0 {
		p.persistAt = now
		p.sendKeepalive(now)
	}
	p.schedule(now)
	return p.actions()
}

// Remove ends a peer that is no longer configured.
func (p *Peer) Remove() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.removed = true
	p.zero()
	p.preshared.Wipe()
	p.setAlarm(0)
}

// disabled reports whether no datagram may be sent to the peer and no timer may run: the peer is
// no longer configured, or the interface is down. The caller holds p.mu.
func (p *Peer) disabled() bool { return p.removed || p.local.down.Load() }

// send adds a datagram to the actions of the present call. The caller holds p.mu.
func (p *Peer) send(msg []byte) {
	if to := p.endpoint.Load(); to != nil {
		p.sendTo(to, msg)
	}
}

// sendTo is send to an address that need not be the peer's endpoint. The caller holds p.mu.
func (p *Peer) sendTo(to *Endpoint, msg []byte) {
	p.out = append(p.out, Datagram{To: to, Message: msg})
}

// actions takes the datagrams of the present call. The caller holds p.mu.
func (p *Peer) actions() Actions {
	a := Actions{Datagrams: p.out}
	p.out = nil
	return a
}
