package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/fd"
)

// ErrRunning means that an engine for the interface runs already.
var ErrRunning = errors.New("an engine for this interface runs already")

// Owner is the process that runs the engine of an interface. The lock file holds it as JSON.
type Owner struct {
	Iface string `json:"interface"`
	PID   int    `json:"pid"`
	Kind  Kind   `json:"engine"`
}

// LockPath returns the lock file of an interface's engine. The engine holds locks on it
// while it lives; the kernel drops them with the process, however it ends.
func LockPath(runDir, iface string) string { return filepath.Join(runDir, iface+".engine") }

// The bytes of the lock file that are locked. They are open file description locks
// (fcntl(2)), which another process can test without taking them.
const (
	claimByte = 0 // locked by the engine
	ownerByte = 1 // locked by the engine once the file names it
)

// lockFile is a held lock.
type lockFile struct{ *os.File }

// takeLock takes the lock for o, or returns ErrRunning with the PID of the engine that holds it.
func takeLock(runDir string, o Owner) (*lockFile, error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, fmt.Errorf("lock engine of %s: %w", o.Iface, err)
	}
	f, err := os.OpenFile(LockPath(runDir, o.Iface), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock engine of %s: %w", o.Iface, err)
	}
	err = fcntl(f, unix.F_OFD_SETLK, lockOf(claimByte))
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		other, _ := readOwner(f)
		return nil, errors.Join(fmt.Errorf("lock engine of %s: %w (pid %d)", o.Iface, ErrRunning, other.PID), f.Close())
	}
	if err == nil {
		err = writeOwner(f, o)
	}
	if err == nil {
		err = fcntl(f, unix.F_OFD_SETLK, lockOf(ownerByte))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock engine of %s: %w", o.Iface, err), f.Close())
	}
	return &lockFile{f}, nil
}

// release releases the lock. The file stays: removing it would race with the next engine.
func (l *lockFile) release() { _ = l.Close() }

// Running returns the owner of the interface's engine, and whether an engine runs. It does not
// wait, and never keeps an engine from taking the lock.
func Running(runDir, iface string) (Owner, bool, error) {
	f, err := os.Open(LockPath(runDir, iface))
	if errors.Is(err, os.ErrNotExist) {
		return Owner{}, false, nil
	}
	if err != nil {
		return Owner{}, false, fmt.Errorf("look for engine of %s: %w", iface, err)
	}
	defer f.Close()
	lock := lockOf(ownerByte)
	if err := fcntl(f, unix.F_OFD_GETLK, lock); err != nil {
		return Owner{}, false, fmt.Errorf("look for engine of %s: %w", iface, err)
	}
	if lock.Type == unix.F_UNLCK {
		return Owner{}, false, nil
	}
	o, err := readOwner(f)
	if err != nil {
		return Owner{}, false, fmt.Errorf("look for engine of %s: %w", iface, err)
	}
	return o, true, nil
}

func lockOf(b int64) *unix.Flock_t { return &unix.Flock_t{Type: unix.F_WRLCK, Start: b, Len: 1} }

// fcntl runs one lock command on f.
func fcntl(f *os.File, command int, lock *unix.Flock_t) error {
	return fd.Control(f, func(fd int) error { return unix.FcntlFlock(uintptr(fd), command, lock) })
}

func readOwner(f *os.File) (Owner, error) {
	var o Owner
	b := make([]byte, 512)
	n, err := f.ReadAt(b, 0)
	if n == 0 {
		return o, err
	}
	return o, json.Unmarshal(b[:n], &o)
}

func writeOwner(f *os.File, o Owner) error {
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(b)))
}
