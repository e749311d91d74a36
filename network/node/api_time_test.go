package node

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener hands out the far ends of pipes: connections that work on virtual time.
type pipeListener struct {
	conns chan net.Conn
	ended chan struct{}
}

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}

func (l pipeListener) Close() error {
	select {
	case <-l.ended:
	default:
		close(l.ended)
	}
	return nil
}

func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// S8: 2,000 clients that read slowly, or sent half a request, held their connections for ever.
func TestSlowClientLosesItsConnection(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, tt := range map[string]struct {
		send  string
		reads int // bytes of the answers; the client then reads no more
		limit time.Duration
	}{
		"sends nothing":             {"", 0, readTime},
		"sends half a request":      {"GET / HTTP/1.1\r\nHo", 0, readTime + writeTime}, // a pipe has no buffer for the error
		"does not read the answer":  {get, 0, writeTime},
		"reads part of the answer":  {get, 4000, writeTime},
		"asks no further questions": {get, 1 << 20, idleTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := pipeListener{conns: make(chan net.Conn), ended: make(chan struct{})}
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					_, _ = w.Write([]byte(strings.Repeat("x", 900<<10)))
				})
				go func() { ended <- serveOn(ctx, l, answer) }()
				near, far := net.Pipe()
				watched := closeTime{Conn: far, at: make(chan time.Time, 8)}
				l.conns <- watched
				begun := time.Now()
				go func() { // ends with the connection
					_, _ = near.Write([]byte(tt.send))
					buf := make([]byte, 1000)
					for read := 0; read < tt.reads; {
						n, err := near.Read(buf)
						if err != nil {
							return
						}
						read += n
					}
				}()
				if took := (<-watched.at).Sub(begun); took > tt.limit+time.Second {
					t.Errorf("the connection was closed after %v, want at most %v", took, tt.limit)
				}
				_ = near.Close()
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// closeTime tells when the server closes its end.
type closeTime struct {
	net.Conn
	at chan time.Time
}

func (c closeTime) Close() error {
	select {
	case c.at <- time.Now():
	default:
	}
	return c.Conn.Close()
}
