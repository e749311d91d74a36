package lab

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox"
)

// marker is in the payload of everything that pods send each other. Whoever sees it on a
// wire sees plaintext, however it is wrapped.
const marker = "LODEN-LAB-PLAINTEXT-MARKER"

// Ping sends ICMP echoes of a family between two hosts of the lab until an echo is answered
// or ctx is done, and returns how long the answered one took. size is of the whole IP
// packet in bytes; it is never fragmented on the way out unless the sender's MTU asks so.
func Ping(ctx context.Context, from *sandbox.Host, to netip.Addr, size int) (time.Duration, error) {
	e, err := newEchoer(from, opt.FamilyOf(to), size)
	if err != nil {
		return 0, err
	}
	var running sync.WaitGroup
	running.Go(e.run)
	defer running.Wait()
	defer e.Close()
	return e.until(ctx, to)
}
