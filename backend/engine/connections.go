package engine

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// The bounds of maxConnections.
const (
	fewConnections  = 8
	manyConnections = 64
)

// maxConnections returns how many UAPI connections may be open at a time: a quarter of the
// descriptors that the process may have, so that leaked connections leave enough of them for
// sockets, hand-overs and the watch of the interface.
func maxConnections() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fewConnections
	}
	return int(min(max(limit.Cur/4, fewConnections), manyConnections))
}

// connections are the open UAPI connections. At the limit, a new connection replaces the
// connection that was idle for the longest time: a client that leaks connections, or sends half a
// request, keeps no other client out.
type connections struct {
	limit int
	busy  sync.WaitGroup

	mu   sync.Mutex
	open map[*activeConn]struct{} // guarded by mu
}

// activeConn is a connection that remembers when bytes last moved.
type activeConn struct {
	net.Conn
	last atomic.Int64 // Unix nanoseconds
}

func (c *activeConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.last.Store(time.Now().UnixNano())
	return n, err
}

func (c *activeConn) Write(b []byte) (int, error) {
	c.last.Store(time.Now().UnixNano())
	n, err := c.Conn.Write(b)
	c.last.Store(time.Now().UnixNano())
	return n, err
}

// serve runs handle on a goroutine, and closes the longest idle connection when that makes
// more than the limit.
func (s *connections) serve(conn net.Conn, handle func(net.Conn)) {
	c := &activeConn{Conn: conn}
	c.last.Store(time.Now().UnixNano())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*activeConn]struct{}{}
	}
	if len(s.open) >= s.limit {
		idlest := s.idlest()
		_ = idlest.Close() // its handler ends
		delete(s.open, idlest)
	}
	s.open[c] = struct{}{}
	s.busy.Go(func() {
		defer s.forget(c)
		handle(c)
	})
}

// idlest returns the connection on which bytes moved least recently. The caller holds mu, and
// there is a connection.
func (s *connections) idlest() (idlest *activeConn) {
	for c := range s.open {
		if idlest == nil || c.last.Load() < idlest.last.Load() {
			idlest = c
		}
	}
	return idlest
}

func (s *connections) forget(c *activeConn) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// finishWithin is how long an unfinished answer may take when its engine ends.
const finishWithin = 200 * time.Millisecond

// closeAll ends every connection and waits for their handlers. A handler that is writing its
// answer may finish it: wgctrl takes half an answer for a whole answer.
func (s *connections) closeAll() {
	s.mu.Lock()
	for c := range s.open {
		_ = errors.Join(c.SetReadDeadline(time.Unix(1, 0)), c.SetWriteDeadline(time.Now().Add(finishWithin)))
	}
	s.mu.Unlock()
	s.busy.Wait()
}
