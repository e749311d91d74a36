package lab

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Relay passes the connections that a listener accepts, such as a listener on the machine's own
// loopback, to a TCP address on the node, until ctx is done. It closes the listener and the
// connections.
func (n *Node) Relay(ctx context.Context, listener net.Listener, address string) error {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		outside, err := listener.Accept()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if !pause(ctx, retry) {
				return nil
			}
			continue // out of descriptors: it passes
		}
		open.Go(func() { n.relay(ctx, outside, address) })
	}
}

// relay passes the bytes of a connection both ways until an end closes it.
func (n *Node) relay(ctx context.Context, outside net.Conn, address string) {
	defer outside.Close()
	var inside net.Conn
	err := n.Do(func() (err error) {
		inside, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		return err
	})
	if err != nil {
		return // the node does not listen: the client sees its connection end
	}
	defer inside.Close()
	stop := context.AfterFunc(ctx, func() { _, _ = outside.Close(), inside.Close() })
	defer stop()
	var group errgroup.Group
	for _, way := range [][2]net.Conn{{inside, outside}, {outside, inside}} {
		group.Go(func() error {
			_, err := io.Copy(way[0], way[1])
			if half, ok := way[0].(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			return err
		})
	}
	_ = group.Wait() // a connection that broke has ended
}
