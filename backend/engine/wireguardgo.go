package engine

import (
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/loden-net/loden/backend/engine/fd"
)

// wireguard-go reports every failed send of every peer: on a node whose uplink is down that
// is a line per peer and five seconds, into a log file under /run.
const (
	linesPerMinute = 10
	samplePeriod   = time.Minute
)

// wireGuardGo runs golang.zx2c4.com/wireguard.
//
// The device is always up, whatever the state of the interface. By default wireguard-go opens
// its sockets when the interface comes up, moments after the port was set, and the client
// that set a port already in use would get no error. This way that client gets the error,
// and a flap of the interface does not re-open the sockets.
type wireGuardGo struct {
	*device.Device
	tun *steadyTUN
}

func openWireGuardGo(file *os.File, log zerolog.Logger) (dataPath, error) {
	copied, err := fd.Duplicate(file)
	if err != nil {
		return nil, fmt.Errorf("start wireguard-go: %w", err)
	}
	inner, _, err := tun.CreateUnmonitoredTUNFromFD(copied)
	if err != nil {
		_ = unix.Close(copied)
		return nil, fmt.Errorf("start wireguard-go: %w", err)
	}
	steady := &steadyTUN{Device: inner, file: file, events: make(chan tun.Event, 1)}
	log = quiet(log)
	dev := device.NewDevice(steady, conn.NewDefaultBind(), &device.Logger{
		Verbosef: device.DiscardLogf,
		Errorf:   func(format string, args ...any) { log.Warn().Msgf(format, args...) },
	})
	if err := dev.Up(); err != nil {
		dev.Close()
		return nil, fmt.Errorf("start wireguard-go: %w", err)
	}
	return &wireGuardGo{Device: dev, tun: steady}, nil
}

// LinkChanged makes the device read its MTU again.
func (w *wireGuardGo) LinkChanged() { w.tun.mtuChanged() }

// Done is closed when the device is.
func (w *wireGuardGo) Done() <-chan struct{} { return w.Device.Wait() }

// steadyTUN is a TUN device that never reports up or down, and a changed MTU by mtuChanged alone.
type steadyTUN struct {
	tun.Device
	file *os.File // Device uses a duplicate of it

	mu     sync.Mutex
	closed bool           // guarded by mu: events is closed
	events chan tun.Event // buffers a single event: a second MTU event would tell the reader no more
}

// Events replaces those of the embedded device.
func (s *steadyTUN) Events() <-chan tun.Event { return s.events }

func (s *steadyTUN) mtuChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	select {
	case s.events <- tun.EventMTUUpdate:
	default:
	}
}

// Close detaches from the TUN device. It may be called twice.
func (s *steadyTUN) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.events)
	_ = s.file.Close()
	return s.Device.Close()
}
