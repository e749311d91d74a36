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

	"golang.org/x/sys/unix"
)

// A running engine takes orders on a socket beside its lock, from root alone: to end, or to
// give everything it has to another engine. One message is one packet (SOCK_SEQPACKET).
//
//	order  {"version":1,"do":"stop"}      ──►
//	       ◄──  parcel {}                                     and the engine ends
//
//	order  {"version":1,"do":"give"}      ──►                 the data path stops
//	       ◄──  parcel {"files":[…],"size":n}, descriptors    SCM_RIGHTS
//	       ◄──  state, n bytes in packets of 64 KiB
//	       "have"                         ──►                 until here the old one goes on
//	       ◄──  "yours"                                       when anything fails
const (
	protocol  = 1
	maxHeader = 4096     // bytes of an order or a parcel
	chunk     = 64 << 10 // bytes of state in one packet

	orderWithin = time.Second     // an order must come that soon after its connection
	giveWithin  = 3 * time.Second // after that the old engine goes on; 10,000 peers with sessions take 0.1 s (November 2026)
)

// The orders.
const (
	doStop = "stop"
	doGive = "give"
)

// order is what is asked of a running engine.
type order struct {
	Version int    `json:"version"`
	Do      string `json:"do"`
	Kind    Kind   `json:"engine,omitempty"` // of the one that asks
	State   uint32 `json:"state,omitempty"`  // version of the state it can read
	Queues  int    `json:"queues,omitempty"` // of a TUN device that it can take; 0: it knows only devices with one
}

// parcel is the answer.
type parcel struct {
	Refused string   `json:"refused,omitempty"`
	Files   []string `json:"files,omitempty"` // what the descriptors are
	Size    int      `json:"size,omitempty"`  // bytes of state that follow
}

// ControlPath returns the socket on which the engine of an interface takes orders.
func ControlPath(runDir, iface string) string { return filepath.Join(runDir, iface+".control") }

// listenControl listens for orders. The caller holds the lock, so a socket that is there
// belongs to an engine that ended or has given everything away.
func listenControl(runDir, iface string) (*net.UnixListener, error) {
	path := ControlPath(runDir, iface)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen for orders: %w", err)
	}
	old := unix.Umask(0o077) // never open to others, not even for a moment
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen for orders: %w", err)
	}
	l.SetUnlinkOnClose(false) // by then it may be the next engine's
	return l, nil
}

// asked is an order and who waits for the answer.
type asked struct {
	order
	conn *net.UnixConn
}

// awaitOrder returns the first order that is one. What is none is refused.
func awaitOrder(ctx context.Context, l *net.UnixListener) (*asked, error) {
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil, nil
			}
			return nil, fmt.Errorf("accept order: %w", err)
		}
		o, err := readOrder(conn)
		if err == nil {
			return &asked{o, conn}, nil
		}
		_ = errors.Join(sendParcel(conn, parcel{Refused: err.Error()}, nil), conn.Close()) // it may be gone
	}
}

func readOrder(conn *net.UnixConn) (o order, err error) {
	if err := onlyUs(conn); err != nil {
		return o, err
	}
	_ = conn.SetDeadline(time.Now().Add(orderWithin)) // fails on a closed one only
	b := make([]byte, maxHeader)
	n, err := conn.Read(b)
	if err != nil {
		return o, fmt.Errorf("read order: %w", err)
	}
	return parseOrder(b[:n])
}

func parseOrder(b []byte) (o order, err error) {
	if err := json.Unmarshal(b, &o); err != nil {
		return o, fmt.Errorf("read order: %w", err)
	}
	if o.Version != protocol || o.Do != doStop && o.Do != doGive {
		return o, fmt.Errorf("order %.20q of version %d: this engine knows stop and give of version %d", o.Do, o.Version, protocol)
	}
	return o, nil
}

// onlyUs refuses a process of another user, whatever the modes of files are.
func onlyUs(conn *net.UnixConn) error {
	peer, err := peerOf(conn)
	if err != nil {
		return err
	}
	if int(peer.Uid) != os.Geteuid() {
		return fmt.Errorf("user %d may not give orders", peer.Uid)
	}
	return nil
}

// peerOf returns the process at the other end: who connected, or who listens. Its number is
// as this process sees it, and 0 when it is in a PID namespace that it cannot see.
func peerOf(conn *net.UnixConn) (*unix.Ucred, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return cred, errors.Join(err, failed)
}

// Stop asks the engine of an interface to end, and returns when it has said that it will.
// It fails when nobody takes orders there.
func Stop(ctx context.Context, runDir, iface string) error {
	conn, err := dialControl(ctx, runDir, iface)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p, _, err := place(conn, order{Version: protocol, Do: doStop})
	if err == nil && p.Refused != "" {
		err = fmt.Errorf("it says: %.200s", p.Refused)
	}
	return err
}

// PID returns the process that listens for orders for the interface's engine, as this
// process sees it; 0 when it cannot see it, or there is none. Unlike the number in the lock
// file, which the engine wrote as it sees itself, it is never another process's.
func PID(ctx context.Context, runDir, iface string) int {
	conn, err := dialControl(ctx, runDir, iface)
	if err != nil {
		return 0
	}
	defer conn.Close()
	peer, err := peerOf(conn)
	if err != nil {
		return 0
	}
	return int(peer.Pid)
}

func dialControl(ctx context.Context, runDir, iface string) (*net.UnixConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unixpacket", ControlPath(runDir, iface))
	if err != nil {
		return nil, fmt.Errorf("order engine of %s: %w", iface, err)
	}
	conn := c.(*net.UnixConn) // Dial of a unix network returns nothing else
	if err := onlyUs(conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
