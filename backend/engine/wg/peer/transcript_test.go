package peer

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/cipher"
	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/state"
)

var update = flag.Bool("update", false, "write the transcripts of testdata anew")

// TestTranscripts plays the scenarios of testdata. A line that begins with "> " is a command; the
// lines below it are what the two hosts did because of it. testdata/README.md explains the form.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("%s differs; see the change with go test ./backend/engine/wg/peer -run Transcripts -update; git diff\n%s", file, firstDifference(string(want), got))
			}
		})
	}
}

// firstDifference shows the first line that differs.
func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, w[i], g[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// play carries out the commands of a transcript and returns it with what the hosts did.
func play(t *testing.T, text string) string {
	w := newWorld(t)
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "> "):
			fmt.Fprintln(&w.log, line)
			w.command(strings.Fields(line[2:]))
			w.run(w.now)
			w.deadlines()
		case strings.HasPrefix(line, "#") || line == "":
			fmt.Fprintln(&w.log, line)
		}
	}
	return w.log.String()
}

// latency is the time that a datagram takes from host to host.
const latency = 10 * time.Millisecond

// begin is the time at which every transcript starts. Printed times are relative to it.
const begin = time.Hour

// world is two hosts, a and b, and the network between them, on a clock of its own.
type world struct {
	t       *testing.T
	log     strings.Builder
	now     Moment
	hosts   map[string]*host
	flying  []flight // in the order of arrival
	seen    map[string]flight
	lose    map[string]bool // "a>b" or "a>b initiation"
	loseOne map[string]bool
}

// flight is a datagram on its way.
type flight struct {
	at       Moment
	from, to *host
	source   netip.AddrPort
	message  []byte
}

// host is one side: a device without its sockets and its TUN device.
type host struct {
	Local
	world   *world
	name    string
	private noise.Key
	address netip.AddrPort
	other   *host
	peer    *Peer
	alarm   Moment
	loaded  bool
	shown   string // the state that was printed last
}

func (h *host) SetAlarm(at Moment) { h.alarm = at }

// numbered is a source of bytes that is the same in every run.
type numbered struct{ *rand.PCG }

func (n numbered) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(n.Uint64())
	}
	return len(b), nil
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: begin, hosts: map[string]*host{}, seen: map[string]flight{}, lose: map[string]bool{}, loseOne: map[string]bool{}}
	for n, name := range []string{"a", "b"} {
		h := &host{world: w, name: name, private: noise.Key{0: 8, 1: byte(n + 1), 31: 64}, address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n + 1)}), 51820)}
		h.Random = numbered{rand.NewPCG(uint64(n), 0)}
		w.hosts[name] = h
		if err := h.SetPrivateKey(h.private); err != nil {
			t.Fatal(err)
		}
	}
	a, b := w.hosts["a"], w.hosts["b"]
	a.other, b.other = b, a
	for _, h := range []*host{a, b} {
		h.peer = new(Peer)
		h.peer.Init(&h.Local, h.other.Identity().Public(), h)
	}
	return w
}

func (w *world) time() Time {
	return Time{Now: w.now, Wall: time.Unix(1_700_000_000, 0).Add(w.now)}
}

// say prints an event of a host.
func (w *world) say(who, format string, args ...any) {
	fmt.Fprintf(&w.log, "  %8.3f  %-5s  %s\n", (w.now - begin).Seconds(), who, fmt.Sprintf(format, args...))
}

// deadlines prints the moments at which the hosts want to be called again.
func (w *world) deadlines() {
	var all []string
	for _, name := range []string{"a", "b"} {
		if at := w.hosts[name].alarm; at == 0 {
			all = append(all, name+" never")
		} else {
			all = append(all, fmt.Sprintf("%s %.3f", name, (at-begin).Seconds()))
		}
	}
	fmt.Fprintf(&w.log, "  next deadline: %s\n", strings.Join(all, ", "))
}

// run lets everything happen that is due until the clock shows end.
func (w *world) run(end Moment) {
	for {
		next, act := end+1, func() {}
		if len(w.flying) > 0 {
			next, act = w.flying[0].at, w.land
		}
		for _, name := range []string{"a", "b"} {
			if h := w.hosts[name]; h.alarm != 0 && max(h.alarm, w.now) < next {
				next, act = max(h.alarm, w.now), func() { h.alarm = 0; h.act(h.peer.Tick(w.time())) }
			}
		}
		if next > end {
			w.now = end
			return
		}
		w.now = next
		act()
	}
}

// land delivers the datagram that arrives next.
func (w *world) land() {
	f := w.flying[0]
	w.flying = w.flying[1:]
	f.to.receive(f)
}

// kind names the type of a message.
func kind(msg []byte) string {
	switch {
	case msg[0] == noise.TypeInitiation:
		return "initiation"
	case msg[0] == noise.TypeResponse:
		return "response"
	case msg[0] == noise.TypeCookie:
		return "cookie"
	case len(msg) == 32:
		return "keepalive"
	}
	return "data"
}

// fly sends a datagram over the network.
func (w *world) fly(from *host, to netip.AddrPort, msg []byte) {
	way := from.name + ">" + from.other.name
	what := kind(msg)
	f := flight{at: w.now + latency, from: from, to: from.other, source: from.address, message: bytes.Clone(msg)}
	w.seen[way+" "+what] = f
	fate := ""
	switch {
	case to != from.other.address:
		fate = ", to " + to.String() + ": nobody there"
	case w.lose[way] || w.lose[way+" "+what] || w.loseOne[way+" "+what]:
		delete(w.loseOne, way+" "+what)
		fate = ", lost"
	default:
		w.flying = append(w.flying, f)
	}
	note := ""
	if what == "data" || what == "keepalive" {
		note = fmt.Sprintf(" %d", msg[8])
	}
	if (what == "initiation" || what == "response") && !bytes.Equal(msg[len(msg)-16:], make([]byte, 16)) {
		note = " with a cookie"
	}
	w.say(way, "%s%s%s", what, note, fate)
}

// show prints a host's state when it has changed.
func (h *host) show() {
	p := h.peer
	name := func(k *Keypair) string {
		if k == nil {
			return "none"
		}
		return fmt.Sprintf("of %.3f", (k.created - begin).Seconds())
	}
	text := "idle"
	if a := p.active; a != nil {
		text = fmt.Sprintf("keypairs: current %s, previous %s, next %s", name(a.current), name(a.previous), name(a.next))
		if n := len(a.staged.packets); n > 0 {
			text += fmt.Sprintf("; %d staged", n)
		}
	}
	if to := p.Endpoint(); to != nil {
		text += "; endpoint " + to.Remote.String()
	}
	if text != h.shown {
		h.world.say(h.name, "%s", text)
		h.shown = text
	}
}

// act carries out what a call of the peer asks for, as the device does.
func (h *host) act(a Actions) {
	for _, d := range a.Datagrams {
		h.world.fly(h, d.To.Remote, d.Message)
	}
	if a.Flush {
		h.flush()
	}
	h.show()
}

func (h *host) flush() {
	h.peer.FlushStaged(func() Moment { return h.world.now }, func(k *Keypair, packets [][]byte) {
		for _, packet := range packets {
			h.seal(k, packet)
		}
	})
}

// seal encrypts and sends a packet, as the device's sender does.
func (h *host) seal(k *Keypair, packet []byte) {
	counter, ok := k.Reserve(1)
	if !ok {
		h.peer.RequestHandshake(h.world.now)
		return
	}
	msg := k.message(counter, packet)
	h.world.fly(h, h.peer.Endpoint().Remote, msg)
	h.peer.NoteSent(h.world.now, len(msg))
}

// receive handles a datagram, as the device's receiver and handshake worker do.
func (h *host) receive(f flight) {
	w, msg := h.world, bytes.Clone(f.message)
	if msg[0] != noise.TypeTransport {
		find := func(key noise.Key) *Peer {
			if h.peer.PublicKey() != key {
				return nil
			}
			return h.peer
		}
		_, actions, verdict := h.Receive(Inbound{
			Message: msg, From: Endpoint{Remote: f.source}, Loaded: h.loaded, Allow: func(netip.Addr) bool { return true }, Find: find,
		}, w.time())
		if verdict == Rejected {
			w.say(h.name, "rejects the %s", kind(msg))
		}
		h.act(actions)
		return
	}
	k := h.Keypair(uint32(msg[4]) | uint32(msg[5])<<8 | uint32(msg[6])<<16 | uint32(msg[7])<<24)
	if k == nil || !k.MayReceive(w.now) {
		w.say(h.name, "drops %s: no keypair", kind(msg))
		return
	}
	var authentic [cipher.Lanes]bool
	if k.Open([][]byte{msg}, &authentic); !authentic[0] {
		w.say(h.name, "drops %s: forged", kind(msg))
		return
	}
	if !k.Accept(uint64(msg[8])) {
		w.say(h.name, "drops %s %d: replayed", kind(msg), msg[8])
		return
	}
	if h.peer.Current() != k {
		h.act(h.peer.Confirm(k, w.time()))
	}
	h.peer.SetEndpointFromPacket(f.source, netip.Addr{}, 0)
	h.peer.NoteReceived(k, w.now, len(msg), kind(msg) == "data")
	h.show()
}

// handOver replaces the host's protocol state by its copy in another process.
func (h *host) handOver() {
	p := h.peer.Export()
	text := state.Encode(&state.Device{Now: h.world.now, Private: h.private, Peers: []state.Peer{p}})
	d, err := state.Decode(text)
	if err != nil {
		h.world.t.Fatal(err)
	}
	random := h.Random
	h.Local = Local{Random: random}
	if err := h.SetPrivateKey(d.Private); err != nil {
		h.world.t.Fatal(err)
	}
	h.peer = new(Peer)
	h.peer.Init(&h.Local, p.Public, h)
	h.peer.Configure(Settings{}, h.world.now)
	if err := h.peer.Resume(&d.Peers[0]); err != nil {
		h.world.t.Fatal(err)
	}
	h.peer.Schedule(h.world.now)
}
