package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errLocked is the refusal of lockNode while another process holds the lock.
var errLocked = errors.New("another loden run works on this node already")

// lockNode makes this process the only process that changes this node's network, until the
// returned file is closed or the process ends, be it by SIGKILL.
func lockNode(runDir string) (*os.File, error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil { // public, like the directory of subnet.env; secret files have their own mode
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	path := filepath.Join(runDir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path)
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w (process %s): stop it first, or give this process another --run-dir", errLocked, strings.TrimSpace(string(holder)))
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, fmt.Sprintln(os.Getpid()))); err != nil {
		return nil, errors.Join(fmt.Errorf("write %s: %w", path, err), f.Close())
	}
	return f, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// lockPoll is the time between two tries of a daemon that stands by: flock(2) can wait for
// the lock, but not for the end of a context as well.
const lockPoll = 50 * time.Millisecond

// awaitLock takes the lock as lockNode does, but waits while another process holds it.
func awaitLock(ctx context.Context, runDir string) (*os.File, error) {
	tick := time.NewTicker(lockPoll)
	defer tick.Stop()
	for {
		f, err := lockNode(runDir)
		if !errors.Is(err, errLocked) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}
