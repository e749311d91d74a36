package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg"
	"github.com/loden-net/loden/backend/engine/wg/state"
)

// The tests of this file are about the rule of retry: faults of the control side do not end the
// data side.

// shortListener has no descriptor for its first accepts.
type shortListener struct {
	net.Listener
	refusals int
	conns    chan net.Conn
}

func (l *shortListener) Accept() (net.Conn, error) {
	if l.refusals > 0 {
		l.refusals--
		return nil, &net.OpError{Op: "accept", Err: unix.EMFILE}
	}
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l *shortListener) Close() error { close(l.conns); return nil }

// echo answers every byte until the client hangs up.
func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// echoes reports whether the handler at the other end of c answers.
func echoes(c net.Conn) bool {
	if _, err := c.Write([]byte{1}); err != nil {
		return false
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err == nil
}

func TestUAPIIsServedAgainOnceThereAreDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &shortListener{refusals: 5, conns: make(chan net.Conn, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		var log strings.Builder
		done := make(chan struct{})
		go func() { acceptUAPI(ctx, zerolog.New(&log), l, echo); close(done) }()
		ours, theirs := net.Pipe()
		l.conns <- theirs
		if !echoes(ours) {
			t.Error("the client that waited is not served")
		}
		_ = ours.Close()
		cancel()
		<-done
		if n := strings.Count(log.String(), `"level":"error"`); n != 1 {
			t.Errorf("%d lines about five failures, want a single line:\n%s", n, log.String())
		}
	})
}

func TestNewUAPIConnectionReplacesTheIdlest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := connections{limit: 3}
		var clients []net.Conn
		open := func() net.Conn {
			ours, theirs := net.Pipe()
			s.serve(theirs, echo)
			clients = append(clients, ours)
			time.Sleep(time.Second)
			return ours
		}
		first, second, third := open(), open(), open()
		if !echoes(first) { // now the second connection is the idlest
			t.Error("the first connection is closed below the limit")
		}
		fourth := open()
		for name, c := range map[string]struct {
			conn net.Conn
			want bool
		}{"first": {first, true}, "second": {second, false}, "third": {third, true}, "fourth": {fourth, true}} {
			if got := echoes(c.conn); got != c.want {
				t.Errorf("%s connection answers: %t, want %t", name, got, c.want)
			}
		}
		for _, c := range clients {
			_ = c.Close()
		}
		s.closeAll()
	})
}

func TestControlSocketIsOpenedAgain(t *testing.T) {
	dir := t.TempDir()
	failures := 2
	c := controlServer{log: zerolog.Nop(), listen: func() (*net.UnixListener, error) {
		if failures--; failures >= 0 {
			return nil, unix.EMFILE
		}
		return listenControl(dir, "x")
	}}
	defer c.close()
	got := make(chan *pendingRequest)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { got <- c.await(ctx) }()
	for {
		conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: filepath.Join(dir, "x.control"), Net: "unixpacket"})
		if err != nil && ctx.Err() == nil {
			continue // not open yet
		}
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(`{"version":1,"do":"stop"}`)); err != nil {
			t.Fatal(err)
		}
		break
	}
	if a := <-got; a == nil || a.Do != opStop {
		t.Errorf("got request %+v, want stop", a)
	} else {
		_ = a.conn.Close()
	}
}

// fakePath is a data path that counts.
type fakePath struct {
	changes, closes int
	leave           error // of HandOver
}

func (p *fakePath) IpcHandle(c net.Conn)  { _ = c.Close() }
func (p *fakePath) LinkChanged()          { p.changes++ }
func (p *fakePath) Done() <-chan struct{} { return nil }
func (p *fakePath) Close()                { p.closes++ }
func (p *fakePath) HandOver() (*state.Device, wg.Files, error) {
	return nil, wg.Files{}, p.leave
}

func TestFailedWatchOfTheInterfaceIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := &fakePath{}
		s := &instance{path: path, o: Options{Log: zerolog.Nop()}}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		attempts := 0
		s.watchLink(ctx, func(ctx context.Context, _ string, changed func()) error {
			if attempts++; attempts <= 3 {
				return unix.EMFILE
			}
			changed()
			cancel()
			return nil
		})
		if attempts != 4 || path.changes != 4 {
			t.Errorf("%d attempts and %d reported changes, want 4 and 4", attempts, path.changes)
		}
	})
}

func TestHandOverWithoutDescriptorsKeepsTheDataPath(t *testing.T) {
	l, err := listenControl(t.TempDir(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.DialUnix("unixpacket", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	path := &fakePath{leave: unix.EMFILE}
	s := &instance{path: path, o: Options{Kind: Loden, Log: zerolog.Nop()}}
	done, err := s.handOver(&pendingRequest{request{Version: protocol, Do: opHandOver, Kind: Loden, State: state.Version, Queues: maxQueues}, conn})
	if done || err != nil || path.closes != 0 {
		t.Errorf("handed over %t, error %v, data path closed %d times; want false, nil, 0", done, err, path.closes)
	}
	b := make([]byte, maxHeader)
	n, err := client.Read(b)
	if r, bad := parseReply(b[:n], 0); err != nil || bad != nil || r.Refused == "" {
		t.Errorf("reply %q, %v: want a refusal", b[:n], errors.Join(err, bad))
	}
}
