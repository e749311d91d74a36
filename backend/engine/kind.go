package engine

import (
	"fmt"
	"net"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/backend/engine/wg"
	"github.com/loden-net/loden/backend/engine/wg/tun"
)

// Kind names an implementation of the userspace data path.
type Kind string

// The implementations.
const (
	WireGuardGo Kind = "wireguard-go" // golang.zx2c4.com/wireguard
	Loden       Kind = "loden"        // this project's own

	DefaultKind = Loden // what "auto" means without WireGuard in the kernel
)

// dataPath is a running implementation between a TUN device and UDP sockets.
type dataPath interface {
	IpcHandle(c net.Conn)  // serves one UAPI connection until it ends, and closes it
	LinkChanged()          // MTU or state (up, down) of the interface may have changed
	Done() <-chan struct{} // closed when the data path ended by itself or by Close
	Close()                // ends the data path, closes the TUN file, waits for its goroutines
}

// start starts the implementation that Options name on the TUN device. The implementation then owns
// the files.
func (s *instance) start(files tun.Files) (dataPath, error) {
	o := s.o
	switch o.Kind {
	case WireGuardGo:
		if o.NoOffload != 0 {
			return nil, fmt.Errorf("start engine wireguard-go: it has no switches for offloads (%s): use the engine loden", o.NoOffload)
		}
		return openWireGuardGo(files.Queues[0], o.Log)
	case Loden:
		d, err := wg.New(files, o.Iface, o.Log)
		if err != nil {
			return nil, err
		}
		if err := d.DisableOffloads(o.NoOffload); err != nil {
			d.Discard()
			return nil, err
		}
		return s.startDevice(d), nil
	default:
		return nil, fmt.Errorf("start engine %q: choose wireguard-go or loden", o.Kind)
	}
}

// quiet returns a logger for a library that may repeat itself: some lines a minute.
func quiet(log zerolog.Logger) zerolog.Logger {
	return log.Sample(&zerolog.BurstSampler{Burst: linesPerMinute, Period: samplePeriod})
}
