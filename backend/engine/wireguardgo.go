package engine

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// wireguard-go reports every failed send of every peer: on a node whose uplink is down that
// is a line per peer and five seconds, into a log file under /run.
const (
	linesPerMinute = 10
	samplePeriod   = time.Minute
)

// wireGuardGo runs golang.zx2c4.com/wireguard.
//
// The device is always up: the state of the interface is not its business. Left to itself
// it opens its sockets when the interface comes up, moments after it was told its port, and
// a port that is taken would be noticed by nobody. This way the one who sets the port gets
// the error, and a flap of the interface does not re-open the sockets.
type wireGuardGo struct {
	*device.Device
	tun *steadyTUN
}

func openWireGuardGo(file *os.File, log zerolog.Logger) (dataPath, error) {
	fd, err := duplicate(file)
	if err != nil {
		return nil, fmt.Errorf("start wireguard-go: %w", err)
	}
	inner, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		_ = unix.Close(fd)
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

// duplicate returns a second descriptor of file. It does not use file.Fd, which would make
// the shared description blocking.
func duplicate(file *os.File) (fd int, err error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Control(func(old uintptr) { fd, failed = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(err, failed)
}

// LinkChanged makes the device read its MTU again.
func (w *wireGuardGo) LinkChanged() { w.tun.mtuChanged() }

// Done is closed when the device is.
func (w *wireGuardGo) Done() <-chan struct{} { return w.Device.Wait() }

// steadyTUN is a TUN device that never reports up or down, and a changed MTU when told to.
type steadyTUN struct {
	tun.Device
	file *os.File // the descriptor that Device was made from a copy of

	mu     sync.Mutex
	closed bool           // guarded by mu: events is closed
	events chan tun.Event // holds at most one event: one more says nothing new
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
