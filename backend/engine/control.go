package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/fd"
)

// A running engine accepts requests on a control socket beside its lock, from processes of its
// own user alone: to stop, to tell its status, or to hand its files and sessions over. Each
// message is one packet (SOCK_SEQPACKET).
//
//	request {"version":1,"do":"stop"}    ──►
//	        ◄──  reply {}                                     and the engine ends
//
//	request {"version":1,"do":"status"}  ──►
//	        ◄──  reply {"status":{…}}                         and the engine goes on
//
//	request {"version":1,"do":"give"}    ──►                  the data path stops
//	        ◄──  reply {"files":[…],"size":n}, descriptors    SCM_RIGHTS
//	        ◄──  state, n bytes in packets of 64 KiB
//	        "have"                       ──►                  acknowledge: until here the old engine
//	        ◄──  "yours"                                      resumes when a step fails; commit
const (
	protocol  = 1
	maxHeader = 4096     // bytes of a request or a reply
	chunk     = 64 << 10 // bytes of state in one packet

	requestWithin  = time.Second     // a connection must send its request that soon
	handOverWithin = 3 * time.Second // then the old engine resumes; 10,000 peers with sessions take 0.1 s (November 2026)
)

// The operations of a request, as they are written on the socket.
const (
	opStop     = "stop"
	opHandOver = "give"
	opStatus   = "status"
)

// request is sent to a running engine.
type request struct {
	Version int    `json:"version"`
	Do      string `json:"do"`
	Kind    Kind   `json:"engine,omitempty"` // of the requesting engine
	State   uint32 `json:"state,omitempty"`  // version of the state that the requesting engine reads
	Queues  int    `json:"queues,omitempty"` // most queues of a TUN device that it reads; 0: it knows single-queue devices only
}

// reply answers a request.
type reply struct {
	Refused string   `json:"refused,omitempty"` // the reason; empty: accepted
	Files   []string `json:"files,omitempty"`   // the names of the descriptors, in their order
	Size    int      `json:"size,omitempty"`    // bytes of state that follow
	Status  *Status  `json:"status,omitempty"`
}

// ControlPath returns the control socket of the interface's engine.
func ControlPath(runDir, iface string) string { return filepath.Join(runDir, iface+".control") }

// listenControl listens on the control socket. The caller holds the lock, so an existing
// socket belongs to an engine that has ended or has handed over.
func listenControl(runDir, iface string) (*net.UnixListener, error) {
	path := ControlPath(runDir, iface)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	old := unix.Umask(0o077) // other users must not be able to connect, not even for a moment
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on control socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // the path may by then be the next engine's
	return l, nil
}

// pendingRequest is a request and the connection that waits for its reply.
type pendingRequest struct {
	request
	conn *net.UnixConn
}

// controlServer accepts requests. It belongs to a single goroutine.
type controlServer struct {
	listen   func() (*net.UnixListener, error)
	listener *net.UnixListener // nil: not open, or it failed
	log      zerolog.Logger
	status   func() *Status
}

// await returns the first request to stop or to hand over, or nil when ctx ends. It answers
// requests for the status, refuses invalid requests, and opens the socket again when it fails.
func (c *controlServer) await(ctx context.Context) *pendingRequest {
	again := retry{log: c.log, step: "requests to stop or to hand over are not accepted: free descriptors or space in the run directory"}
	for ctx.Err() == nil {
		conn, err := c.accept(ctx)
		if err != nil {
			if ctx.Err() == nil {
				again.after(ctx, err)
			}
			continue
		}
		again.succeeded()
		r, err := readRequest(conn)
		answer := reply{}
		switch {
		case err != nil:
			answer.Refused = err.Error()
		case r.Do == opStatus:
			answer.Status = c.status()
		default:
			return &pendingRequest{r, conn}
		}
		_ = errors.Join(sendReply(conn, answer, nil), conn.Close()) // the client may have gone
	}
	return nil
}

// accept waits for a connection until ctx ends. After an error that does not pass by itself the
// next call opens the socket anew.
func (c *controlServer) accept(ctx context.Context) (_ *net.UnixConn, err error) {
	if c.listener == nil {
		if c.listener, err = c.listen(); err != nil {
			return nil, err
		}
	}
	l := c.listener
	_ = l.SetDeadline(time.Time{}) // set by the round before
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := l.AcceptUnix()
	if err == nil || ctx.Err() != nil || passes(err) {
		return conn, err
	}
	c.close()
	return nil, fmt.Errorf("accept control connection: %w", err)
}

// passes reports whether accept(2) fails only while resources are short, or for this client only.
func passes(err error) bool {
	for _, e := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// close closes the socket. The server may be used again.
func (c *controlServer) close() {
	if c.listener != nil {
		_ = c.listener.Close()
	}
	c.listener = nil
}

func readRequest(conn *net.UnixConn) (r request, err error) {
	if err := checkUser(conn); err != nil {
		return r, err
	}
	_ = conn.SetDeadline(time.Now().Add(requestWithin)) // fails on a closed connection only
	b := make([]byte, maxHeader)
	n, err := conn.Read(b)
	if err != nil {
		return r, fmt.Errorf("read request: %w", err)
	}
	return parseRequest(b[:n])
}

func parseRequest(b []byte) (r request, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read request: %w", err)
	}
	if r.Version != protocol || r.Do != opStop && r.Do != opHandOver && r.Do != opStatus {
		return r, fmt.Errorf("request %.20q of version %d: this engine knows stop, give and status of version %d", r.Do, r.Version, protocol)
	}
	return r, nil
}

// checkUser refuses a process of another user, whatever the modes of the socket file are.
func checkUser(conn *net.UnixConn) error {
	peer, err := credentials(conn)
	if err != nil {
		return err
	}
	if int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not control this engine: only user %d may", peer.Uid, os.Geteuid())
	}
	return nil
}

// credentials returns the process at the other end: the client's, or the listener's. Its PID
// is as this process sees it, and 0 for a process in a PID namespace that this process cannot see.
func credentials(conn *net.UnixConn) (cred *unix.Ucred, err error) {
	err = fd.Control(conn, func(fd int) (err error) {
		cred, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		return err
	})
	return cred, err
}

// Stop asks the engine of an interface to end, and returns when the engine has agreed. It
// fails when no engine listens on the control socket.
func Stop(ctx context.Context, runDir, iface string) error {
	conn, err := dialControl(ctx, runDir, iface)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer, _, err := call(conn, request{Version: protocol, Do: opStop})
	if err == nil && answer.Refused != "" {
		err = fmt.Errorf("the engine refused to stop: %.200s", answer.Refused)
	}
	return err
}

// PID returns the process that listens on the control socket of the interface's engine, as
// this process sees it; 0 when this process cannot see it, or no engine listens. The lock file
// holds the PID as the engine sees itself, which in another PID namespace may be the number of
// an unrelated process; PID never returns such a number.
func PID(ctx context.Context, runDir, iface string) int {
	conn, err := dialControl(ctx, runDir, iface)
	if err != nil {
		return 0
	}
	defer conn.Close()
	peer, err := credentials(conn)
	if err != nil {
		return 0
	}
	return int(peer.Pid)
}

func dialControl(ctx context.Context, runDir, iface string) (*net.UnixConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unixpacket", ControlPath(runDir, iface))
	if err != nil {
		return nil, fmt.Errorf("connect to engine of %s: %w", iface, err)
	}
	conn := c.(*net.UnixConn) // Dial of a unix network returns no other type
	if err := checkUser(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
