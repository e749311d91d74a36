package engine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// The memory of an engine process after configuration. A request with 10,000 peers leaves some
// megabytes of garbage beside 7 MB of peers, and an idle engine allocates so little that Go would
// keep both for hours. The code of the program's start is resident too: 8 MB, of which an engine at
// work needs a part. Seen with 10,000 peers (November 2026): 45 MB resident without, 27 MB with.
const (
	trimDelay   = 2 * time.Second  // after the end of a UAPI connection: further connections may follow
	trimGarbage = 1 << 20          // bytes allocated since the last time, below which it is not worth a collection
	trimAgain   = 30 * time.Second // at least between two collections: each takes milliseconds
)

// memory gives memory back to the kernel after configuration. A nil memory keeps everything. Its
// methods are safe for concurrent use.
type memory struct {
	log zerolog.Logger

	mu        sync.Mutex // guards all below
	timer     *time.Timer
	stopped   bool
	trimmedAt time.Time
	allocated uint64 // bytes in the life of the process, at the last collection
	unmapped  bool   // the code was dropped once
}

// used notes that a UAPI connection has ended. It does not wait.
func (m *memory) used() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.timer != nil || m.stopped {
		return
	}
	m.timer = time.AfterFunc(max(trimDelay, trimAgain-time.Since(m.trimmedAt)), m.trim)
}

// trim gives memory back, if enough was allocated since the last time.
func (m *memory) trim() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.timer = nil
	now := allocatedBytes()
	if m.stopped || now-m.allocated < trimGarbage {
		return
	}
	debug.FreeOSMemory()
	m.trimmedAt, m.allocated = time.Now(), allocatedBytes()
	if m.unmapped {
		return
	}
	m.unmapped = true
	if err := dropCode(); err != nil {
		m.log.Debug().Err(err).Msg("code of the program's start stays in memory")
	}
}

// stop ends the use of the memory.
func (m *memory) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopped = true
	if m.timer != nil {
		m.timer.Stop()
	}
}

// allocatedBytes returns the bytes that the process has allocated so far.
func allocatedBytes() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// dropCode takes the pages of the program's code out of the resident set; pages in use come back
// from the page cache at their next use, at a minor fault for 64 KiB. It drops only executable
// mappings that cannot be written: their pages equal the file's, also in a position-independent
// program, whose relocations are in other mappings.
func dropCode() error {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return err
	}
	defer maps.Close()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	var errs []error
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uintptr
		var rights string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &rights); err != nil {
			return fmt.Errorf("read /proc/self/maps: %w", err)
		}
		if rights == "r-xp" && strings.HasSuffix(lines.Text(), " "+self) {
			if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
				errs = append(errs, os.NewSyscallError("madvise", syscall.Errno(errno)))
			}
		}
	}
	return errors.Join(errs...)
}
