package stamps

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tai64n"
	"pgregory.net/rapid"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// at returns a timestamp n seconds after 1970.
func at(n uint64) (s tai64n.Timestamp) {
	binary.BigEndian.PutUint64(s[:], 0x400000000000000a+n)
	return s
}

// fakeDevice is the peers of a device with their newest timestamps.
type fakeDevice struct {
	mu    sync.Mutex
	peers map[noise.Key]tai64n.Timestamp // guarded by mu
}

func (d *fakeDevice) newest(k noise.Key) tai64n.Timestamp {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.peers[k]
}

func (d *fakeDevice) all(yield func(noise.Key, tai64n.Timestamp) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for k, s := range d.peers {
		if !yield(k, s) {
			return
		}
	}
}

// set accepts an initiation; a zero timestamp removes the peer.
func (d *fakeDevice) set(k noise.Key, s tai64n.Timestamp) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s == (tai64n.Timestamp{}) {
		delete(d.peers, k)
	} else {
		d.peers[k] = s
	}
}

// configure adds a peer with its recorded timestamp, which it returns.
func (d *fakeDevice) configure(k noise.Key, f *File) tai64n.Timestamp {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.peers[k] = f.Take(k)
	return d.peers[k]
}

// openFor opens the file at path for a new device.
func openFor(path string, log *bytes.Buffer) (*File, *fakeDevice) {
	f := Open(path, zerolog.New(log))
	d := &fakeDevice{peers: map[noise.Key]tai64n.Timestamp{}}
	f.Follow(d.newest, d.all)
	return f, d
}

// recorded returns the timestamps in the file; none when it does not exist yet.
func recorded(t testing.TB, path string) map[noise.Key]tai64n.Timestamp {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	newest, damaged := Decode(b)
	if damaged != 0 {
		t.Fatalf("%d bytes of the file are damaged", damaged)
	}
	return newest
}

func TestAcceptedInitiationIsInTheFileWithoutAnEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.stamps")
	var log bytes.Buffer
	f, d := openFor(path, &log)
	defer f.Close()
	a := noise.Key{1}
	d.set(a, at(5))
	f.Changed(a)
	for deadline := time.Now().Add(10 * time.Second); recorded(t, path)[a] != at(5); {
		if time.Now().After(deadline) {
			t.Fatalf("the file says %v", recorded(t, path))
		}
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", &log)
	}
}

func TestTimestampIsGivenToANewPeerOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.stamps")
	var log bytes.Buffer
	f, d := openFor(path, &log)
	a, b := noise.Key{1}, noise.Key{2}
	for _, k := range []noise.Key{a, b} {
		d.set(k, at(5))
		f.Changed(k)
	}
	f.Flush()
	d.set(b, tai64n.Timestamp{}) // removed
	f.Changed(b)
	f.Close()
	f, _ = openFor(path, &log)
	defer f.Close()
	for i, want := range []struct {
		peer  noise.Key
		stamp tai64n.Timestamp
	}{{a, at(5)}, {a, tai64n.Timestamp{}}, {b, tai64n.Timestamp{}}} {
		if got := f.Take(want.peer); got != want.stamp {
			t.Errorf("step %d: got %x, want %x", i, got, want.stamp)
		}
	}
}

func TestTornOrForeignFileIsIgnoredWithALine(t *testing.T) {
	a, b := noise.Key{1}, noise.Key{2}
	whole := appendRecord(appendRecord(nil, Record{a, at(1)}), Record{b, at(2)})
	altered := bytes.Clone(whole)
	altered[40]++
	for name, c := range map[string]struct {
		prepare func(path string) error
		want    map[noise.Key]tai64n.Timestamp
		line    string // of the log; "": none
	}{
		"whole":          {content(whole), map[noise.Key]tai64n.Timestamp{a: at(1), b: at(2)}, ""},
		"no file":        {func(string) error { return nil }, nil, ""},
		"a torn tail":    {content(whole[:len(whole)-1]), map[noise.Key]tai64n.Timestamp{a: at(1)}, `"bytes":47`},
		"a changed byte": {content(altered), map[noise.Key]tai64n.Timestamp{b: at(2)}, `"bytes":48`},
		"a text":         {content([]byte("hello")), nil, `"bytes":5`},
		"too large":      {content(make([]byte, maxRecords*recordSize+1)), nil, "not a file of at most"},
		"a FIFO":         {func(path string) error { return unix.Mkfifo(path, 0o600) }, nil, "not a file of at most"},
		"a symbolic link": {func(path string) error {
			return os.Symlink("/etc/passwd", path)
		}, nil, "the record of initiations is ignored"},
		"the future": {
			content(appendRecord(bytes.Clone(whole), Record{a, at(uint64(time.Now().Add(2 * time.Hour).Unix()))})),
			map[noise.Key]tai64n.Timestamp{b: at(2)}, "ahead of this host's clock",
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.stamps")
			if err := c.prepare(path); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			f, d := openFor(path, &log)
			for peer := range c.want { // configured
				d.configure(peer, f)
			}
			f.Close()
			if got := recorded(t, path); !maps.Equal(got, c.want) {
				t.Errorf("the file says %v, want %v", got, c.want)
			}
			if lines := strings.Count(log.String(), "\n"); lines > 1 || (c.line == "") != (lines == 0) || !strings.Contains(log.String(), c.line) {
				t.Errorf("logged %s, want %s", &log, c.line)
			}
		})
	}
}

// content returns a function that writes a file.
func content(b []byte) func(string) error {
	return func(path string) error { return os.WriteFile(path, b, 0o600) }
}

func TestFileStaysWithinItsBound(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.stamps")
	var log bytes.Buffer
	f, d := openFor(path, &log)
	defer f.Close()
	const peers = 10
	for n := range uint64(5 * slack) {
		k := noise.Key{byte(n % peers)}
		d.set(k, at(n+1))
		f.Changed(k)
		f.Flush()
		if info, err := os.Stat(path); err != nil || info.Size() > (2*peers+slack)*recordSize {
			t.Fatalf("after %d initiations of %d peers: %v, %v", n+1, peers, info.Size(), err)
		}
	}
	if got := recorded(t, path); !maps.Equal(got, d.peers) {
		t.Errorf("the file says %v, want %v", got, d.peers)
	}
}

func TestUnclaimedTimestampIsKeptForAnHour(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.stamps")
	a := noise.Key{1}
	if err := content(appendRecord(nil, Record{a, at(1)}))(path); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	f := open(path, zerolog.Nop(), func() time.Time { return now })
	defer f.Close()
	for _, after := range []time.Duration{time.Minute, 2 * time.Hour} {
		now = f.opened.Add(after)
		f.output.Lock()
		if err := f.compact(); err != nil {
			t.Fatal(err)
		}
		f.output.Unlock()
		if _, kept := recorded(t, path)[a]; kept != (after < keepUnclaimed) {
			t.Errorf("after %v it is kept: %t", after, kept)
		}
	}
}

func TestFileIsWrittenAgainOnceThereIsRoom(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // no directory: no file can be made
		t.Fatal(err)
	}
	var passed atomic.Int64
	began := time.Now()
	var log bytes.Buffer
	f := open(filepath.Join(dir, "x.stamps"), zerolog.New(&log), func() time.Time { return began.Add(time.Duration(passed.Load())) })
	defer f.Close()
	d := &fakeDevice{peers: map[noise.Key]tai64n.Timestamp{}}
	f.Follow(d.newest, d.all)
	a, b := noise.Key{1}, noise.Key{2}
	accept := func(k noise.Key) {
		f.Flush() // with the file of the moment before
		passed.Add(int64(2 * retryAfter))
		d.set(k, at(1))
		f.Changed(k)
		f.Flush()
	}
	accept(a)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	accept(b)
	if got := recorded(t, f.path); !maps.Equal(got, d.peers) {
		t.Errorf("the file says %v, want %v", got, d.peers)
	}
	if n := strings.Count(log.String(), `"level":"error"`); n != 1 || !strings.Contains(log.String(), "recorded again") {
		t.Errorf("%d lines about two failures, want a single line and its end:\n%s", n, &log)
	}
}

// TestFileSaysWhatTheDeviceSays compares the file with a device through restarts and torn ends.
func TestFileSaysWhatTheDeviceSays(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		path := filepath.Join(dir, "x.stamps")
		if err := os.RemoveAll(path); err != nil {
			r.Fatal(err)
		}
		var log bytes.Buffer
		f, d := openFor(path, &log)
		for range rapid.IntRange(1, 30).Draw(r, "steps") {
			k := noise.Key{rapid.ByteRange(0, 3).Draw(r, "peer")}
			switch rapid.IntRange(0, 5).Draw(r, "step") {
			case 0: // removed
				d.set(k, tai64n.Timestamp{})
				f.Changed(k)
			case 1: // restarted, perhaps after a record was torn
				f.Close()
				if torn := rapid.IntRange(0, recordSize-1).Draw(r, "torn"); torn > 0 {
					if err := appendTo(path, make([]byte, torn)); err != nil {
						r.Fatal(err)
					}
				}
				before := d
				f, d = openFor(path, &log)
				for k, want := range before.peers {
					if got := d.configure(k, f); got != want {
						r.Fatalf("peer %x starts with %x, want %x", k[:1], got[:], want[:])
					}
				}
			default:
				d.set(k, at(rapid.Uint64Range(1, 1000).Draw(r, "stamp")))
				f.Changed(k)
			}
		}
		f.Close()
	})
}

func appendTo(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(b)
	return err
}

func FuzzDecodeReadsWhatWasWrittenAndNoMore(f *testing.F) {
	f.Add([]byte("hello"))
	f.Add(appendRecord(appendRecord(nil, Record{noise.Key{1}, at(1)}), Record{noise.Key{1}, tai64n.Timestamp{}})[:2*recordSize-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		newest, damaged := Decode(b)
		if damaged < len(b)%recordSize || damaged > len(b) || len(newest)*recordSize > len(b)-damaged {
			t.Fatalf("%d peers and %d damaged bytes in %d bytes", len(newest), damaged, len(b))
		}
		var again []byte
		for k, s := range newest {
			again = appendRecord(again, Record{k, s})
		}
		if got, damaged := Decode(again); damaged != 0 || !maps.Equal(got, newest) {
			t.Fatalf("%v is read again as %v with %d damaged bytes", newest, got, damaged)
		}
	})
}
