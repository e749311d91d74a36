package sandboxtest

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/test/sandbox"
)

// Transfer sends size random bytes over TCP from one host to an address of another. An error
// is why they are not there whole within the time. It blocks until it has one.
func Transfer(from, to *sandbox.Host, addr string, size int64, within time.Duration) error {
	deadline := time.Now().Add(within)
	var l net.Listener
	if err := to.Do(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(addr, "0"))
		return err
	}); err != nil {
		return err
	}
	defer l.Close()
	var sent, received uint32
	var group errgroup.Group
	group.Go(func() error {
		_ = l.(*net.TCPListener).SetDeadline(deadline) // SetDeadline fails on a closed listener only
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(deadline)
		received, err = digest(io.Discard, c)
		return err
	})
	group.Go(func() error {
		var c net.Conn
		if err := from.Do(func() (err error) {
			c, err = net.DialTimeout("tcp", l.Addr().String(), within)
			return err
		}); err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(deadline)
		var err error
		sent, err = digest(c, io.LimitReader(rand.NewChaCha8([32]byte{1}), size))
		return err
	})
	err := group.Wait()
	if err == nil && sent != received {
		err = errors.New("altered on their way")
	}
	if err != nil {
		return fmt.Errorf("send %d bytes to %s: %w", size, addr, err)
	}
	return nil
}

// digest copies everything and returns its checksum.
func digest(to io.Writer, from io.Reader) (uint32, error) {
	sum := crc32.NewIEEE()
	_, err := io.Copy(io.MultiWriter(to, sum), from)
	return sum.Sum32(), err
}
