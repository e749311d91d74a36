// Package stamps owns the file in which an engine records the newest TAI64N timestamp of each peer's
// handshake initiations, so that an initiation which an engine accepted is refused by the next
// engine, however the first engine ended. It does not know peers, devices or messages.
//
//	handshake worker ──Changed(peer)──► set of peers ──► goroutine, while the set is not empty:
//	                                                     ask the device, append a record to the file
//	start of an engine: Open reads the file, Take gives each new peer its timestamp, Follow has the file
//	                    made anew by the goroutine, without its outdated records
//
// White paper, section 5.1: a responder keeps the greatest timestamp received per peer and discards
// initiations with a timestamp that is not greater. An engine that forgets the timestamps with its
// process answers an old initiation that an attacker recorded.
//
// A peer whose clock went back is refused until its clock has passed the newest timestamp: within the
// life of an engine, as in the kernel, and now by the next engine too. The refusal ends when this side
// begins a handshake, when the peer is removed and configured anew, with `loden down`, which removes
// the file, and with a reboot, which empties the run directory. A restart of the engine ends it where
// the clock of the peer had been ahead: Open forgets timestamps that are more than an hour ahead of this
// host's clock, so that a peer whose clock was wrong and is right now is not refused for years.
//
// The file is not synced at each record: it outlives processes, and need not outlive the kernel.
package stamps

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/config"
)

// The bounds of a file.
const (
	maxPeers      = 1 << 16            // records that a compacted file has at most
	slack         = 1024               // records that are appended, besides as many as there are peers, before the file is compacted
	maxRecords    = 2*maxPeers + slack // 6 MiB
	keepUnclaimed = time.Hour          // records of peers that are not configured are kept this long after Open
	retryAfter    = time.Minute        // pause after a write that failed
	fileMode      = os.FileMode(0o600) // public keys and times: of interest to root alone
	dirMode       = os.FileMode(0o755) // of the run directory
)

// File is an open file of timestamps. Faults of the file are logged and end no engine: peers are
// then not protected against replays across restarts. A nil File records nothing. Its methods are
// safe for concurrent use.
type File struct {
	path   string
	log    zerolog.Logger
	now    func() time.Time
	opened time.Time

	mu       sync.Mutex                             // guards the fields below; no input or output happens under it
	loaded   map[noise.Key]tai64n.Timestamp         // of peers that are not configured yet
	changed  map[noise.Key]struct{}                 // peers whose records are to be written
	one      func(noise.Key) tai64n.Timestamp       // see Follow; nil: no device yet
	all      iter.Seq2[noise.Key, tai64n.Timestamp] // see Follow
	writing  bool                                   // a goroutine writes
	outdated bool                                   // the file is to be made anew
	closed   bool
	writers  sync.WaitGroup

	output  sync.Mutex // held while the file is written; guards the fields below, and is taken before mu
	file    *os.File   // nil: the next write makes the file anew
	records int        // in the file
	limit   int        // of records: a greater number makes the file anew
	failed  bool       // the last write failed
	retryAt time.Time  // no write before
}

// Open reads the file, if there is a file. The caller holds the lock of the interface's engine, and
// closes the File.
func Open(path string, log zerolog.Logger) *File { return open(path, log, time.Now) }

func open(path string, log zerolog.Logger, now func() time.Time) *File {
	f := &File{path: path, log: log, now: now, opened: now(), changed: map[noise.Key]struct{}{}}
	if err := config.Sweep(path); err != nil {
		f.log.Debug().Err(err).Msg("temporary files beside the record of initiations stay")
	}
	f.load()
	return f
}

// load reads the records of the engine before.
func (f *File) load() {
	content, err := read(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		f.log.Warn().Err(err).Msg("the record of initiations is ignored: old initiations may be answered again")
		return
	}
	var damaged int
	if f.loaded, damaged = Decode(content); damaged > 0 {
		f.log.Warn().Int("bytes", damaged).Msg("a damaged part of the record of initiations is ignored")
	}
	forgotten := 0
	for key, stamp := range f.loaded {
		if ahead(stamp, f.opened) {
			delete(f.loaded, key)
			forgotten++
		}
	}
	if forgotten > 0 {
		f.log.Warn().Int("peers", forgotten).Msg("recorded initiations are ignored, because they are more than an hour ahead of this host's clock: " +
			"check the clocks of this host and of its peers")
	}
}

// read returns the content of a regular file of bounded size.
func read(path string) ([]byte, error) {
	// O_NONBLOCK: opening a FIFO must not wait.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxRecords*recordSize {
		return nil, fmt.Errorf("read %s: not a file of at most %d bytes", path, maxRecords*recordSize)
	}
	var b bytes.Buffer
	_, err = b.ReadFrom(io.LimitReader(f, maxRecords*recordSize))
	return b.Bytes(), err
}

// Take returns the recorded timestamp of a peer that is configured now, once: a peer that is removed
// and configured anew starts without. Zero: none. The caller lets no call of Follow's all see a moment
// between Take and the peer's addition: the record would be lost.
func (f *File) Take(peer noise.Key) tai64n.Timestamp {
	if f == nil {
		return tai64n.Timestamp{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	stamp := f.loaded[peer]
	delete(f.loaded, peer)
	return stamp
}

// Follow names the source of the records: one returns the newest timestamp of a peer, or zero for a
// peer that is not configured; all yields those of all peers. They are called on a goroutine of the
// File, which makes the file anew at once. Call it before Changed.
func (f *File) Follow(one func(noise.Key) tai64n.Timestamp, all iter.Seq2[noise.Key, tai64n.Timestamp]) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.one, f.all, f.outdated = one, all, true
	f.startWriting()
}

// Changed has the timestamp of a peer recorded, on another goroutine. It does not wait. An engine
// that is killed in the moment before leaves the record before.
func (f *File) Changed(peer noise.Key) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.one == nil {
		return
	}
	f.changed[peer] = struct{}{}
	f.startWriting()
}

// startWriting starts the goroutine, unless it runs. The caller holds f.mu.
func (f *File) startWriting() {
	if !f.writing {
		f.writing = true
		f.writers.Go(f.write)
	}
}

// write writes records until no peer has changed.
func (f *File) write() {
	for {
		f.Flush()
		f.mu.Lock()
		if len(f.changed) == 0 {
			f.writing = false
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
	}
}

// Flush writes the records of all peers that have changed.
func (f *File) Flush() {
	if f == nil {
		return
	}
	f.output.Lock()
	defer f.output.Unlock()
	f.mu.Lock()
	changed, outdated, one := f.changed, f.outdated, f.one
	f.changed, f.outdated = map[noise.Key]struct{}{}, false
	f.mu.Unlock()
	if !outdated && len(changed) == 0 || f.now().Before(f.retryAt) {
		return // after a failure, a later change makes the file anew, with all peers
	}
	if outdated || f.file == nil || f.records+len(changed) > f.limit {
		f.report(f.compact())
		return
	}
	b := make([]byte, 0, len(changed)*recordSize)
	for peer := range changed {
		b = appendRecord(b, Record{peer, one(peer)})
	}
	_, err := f.file.Write(b)
	f.records += len(changed)
	f.report(err)
}

// report logs the first error of a row, after which the file is made anew by a later write. The
// caller holds f.output.
func (f *File) report(err error) {
	if err == nil {
		if f.failed {
			f.log.Info().Msg("initiations are recorded again")
		}
		f.failed = false
		return
	}
	if !f.failed {
		f.log.Error().Err(err).Msg("initiations are not recorded, so that the next engine may answer old initiations: free space in the run directory")
	}
	f.failed, f.retryAt = true, f.now().Add(retryAfter)
	f.release()
}

// compact makes the file anew, with a record for each peer. The caller holds f.output.
func (f *File) compact() error {
	newest := f.snapshot()
	var b []byte
	for peer, stamp := range newest {
		if len(b) == maxPeers*recordSize {
			break
		}
		if stamp != (tai64n.Timestamp{}) {
			b = appendRecord(b, Record{peer, stamp})
		}
	}
	f.release()
	if err := config.WriteFile(f.path, b, fileMode, dirMode); err != nil {
		return err
	}
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	f.file, f.records = file, len(b)/recordSize
	f.limit = 2*f.records + slack
	return nil
}

// snapshot returns what the file should say: the timestamps of the device's peers, and those of the
// engine before whose peers may yet be configured.
func (f *File) snapshot() map[noise.Key]tai64n.Timestamp {
	newest := map[noise.Key]tai64n.Timestamp{}
	f.mu.Lock()
	if f.now().Sub(f.opened) > keepUnclaimed {
		f.loaded = nil
	}
	for peer, stamp := range f.loaded {
		newest[peer] = stamp
	}
	all := f.all
	f.mu.Unlock()
	if all != nil {
		for peer, stamp := range all {
			newest[peer] = stamp
		}
	}
	return newest
}

// release closes the file. The caller holds f.output.
func (f *File) release() {
	if f.file != nil {
		_ = f.file.Close() // every write was reported
	}
	f.file = nil
}

// Close writes the records that are left and closes the file. It waits for the goroutine. A second
// call does no work: another engine may have the file by then.
func (f *File) Close() {
	if f == nil {
		return
	}
	f.mu.Lock()
	closed := f.closed
	f.closed = true
	f.mu.Unlock()
	if closed {
		return
	}
	f.writers.Wait()
	f.Flush()
	f.output.Lock()
	defer f.output.Unlock()
	f.release()
}
