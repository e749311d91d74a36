package engine_test

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"os"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/backend/engine/wg/stamps"
)

// stranger is a peer of the engine that sends initiations from recordings.
type stranger struct {
	t      *testing.T
	self   *noise.Identity
	engine wgtypes.Key // private
	conn   net.Conn
}

func newStranger(t *testing.T) *stranger {
	t.Helper()
	ip(t, "link", "set", "lo", "up")
	private, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	self, err := noise.NewIdentity(noise.Key(private))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp4", "127.0.0.1:51820")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &stranger{t: t, self: self, engine: theirs, conn: conn}
}

// configure makes the stranger a peer of the engine, or not.
func (s *stranger) configure(remove bool) {
	s.t.Helper()
	client, err := wgctrl.New()
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.Close()
	c := wgtypes.Config{
		PrivateKey: &s.engine, ListenPort: new(51820),
		Peers: []wgtypes.PeerConfig{{PublicKey: wgtypes.Key(s.self.Public()), Remove: remove}},
	}
	if err := client.ConfigureDevice(iface, c); err != nil {
		s.t.Fatal(err)
	}
	ip(s.t, "link", "set", iface, "up")
}

// initiation returns an initiation with an index and a timestamp in seconds after 1970.
func (s *stranger) initiation(index uint32, seconds uint64) []byte {
	s.t.Helper()
	remote := noise.Key(s.engine.PublicKey())
	shared, err := s.self.Shared(remote)
	if err != nil {
		s.t.Fatal(err)
	}
	var stamp tai64n.Timestamp
	binary.BigEndian.PutUint64(stamp[:], 0x400000000000000a+seconds)
	_, msg, err := s.self.Initiate(noise.Remote{Public: remote, Shared: shared}, index, stamp)
	if err != nil {
		s.t.Fatal(err)
	}
	noise.NewStamp(remote).Sign(msg, 0)
	return msg
}

// expect sends initiations one behind the other and wants the first answer for that index. It repeats
// them, because the engine refuses initiations of a peer that come within 20 ms.
func (s *stranger) expect(index uint32, messages ...[]byte) {
	s.t.Helper()
	b := make([]byte, 256)
	for deadline := time.Now().Add(10 * time.Second); ; {
		for _, m := range messages {
			if _, err := s.conn.Write(m); err != nil {
				s.t.Fatal(err)
			}
		}
		_ = s.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond)) // fails on a closed connection only
		n, err := s.conn.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(deadline) {
			continue
		}
		if err != nil || b[0] != noise.TypeResponse {
			s.t.Fatalf("answer %x, %v: want a response", b[:n], err)
		}
		if got := noise.Receiver(b); got != index {
			s.t.Fatalf("initiation %d is answered, want %d", got, index)
		}
		return
	}
}

// recorded waits until the engine's file has a peer with that timestamp: an engine that is killed
// now leaves it.
func (s *stranger) recorded(o engine.Options, seconds uint64) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		b, err := os.ReadFile(engine.StampPath(o.RunDir, iface))
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the engine makes it soon
			s.t.Fatal(err)
		}
		newest, _ := stamps.Decode(b)
		stamp := newest[s.self.Public()]
		if binary.BigEndian.Uint64(stamp[:]) == 0x400000000000000a+seconds {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the file has %x, want %d", stamp, seconds)
		}
	}
}

func TestRecordedInitiationIsRefusedByTheNextEngine(t *testing.T) {
	o := options(t)
	e := start(t, o)
	s := newStranger(t)
	s.configure(false)
	old := s.initiation(1, 100)
	s.expect(1, old)
	s.recorded(o, 100)
	e.stop()
	if err := e.wait(); err != nil {
		t.Fatal(err)
	}

	e = start(t, o)
	s.configure(false)
	s.expect(2, old, s.initiation(2, 101))
	s.recorded(o, 101)

	o.Relay = true // by way of a hand-over
	next := start(t, o)
	if err := e.wait(); err != nil {
		t.Fatal(err)
	}
	s.expect(3, old, s.initiation(3, 102))
	s.recorded(o, 102)
	next.stop()
	if err := next.wait(); err != nil {
		t.Fatal(err)
	}

	e = start(t, o)
	s.configure(false)
	s.expect(4, s.initiation(9, 102), s.initiation(4, 103))
	s.configure(true)
	s.configure(false)
	s.expect(5, s.initiation(5, 50)) // as before: configured anew, it may begin with any clock
	s.recorded(o, 50)
	ip(t, "link", "delete", iface)
	if err := e.wait(); err != nil {
		t.Error(err)
	}
}
