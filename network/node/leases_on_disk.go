package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// leasesOnDisk is the file from which a node starts while etcd is away: the network document,
// this node's lease, and all leases; and the log of the leases' changes since the file was
// written. The file is written anew when the log has grown to half of its size, so that a join
// costs about three lines on the disk, however many nodes there are.
type leasesOnDisk struct {
	stateDir string
	kept     opt.Option[subnet.Saved] // as the disk has it; none when that is not known
	size     int                      // of the file, bytes
	logged   int                      // of the log, bytes; 0 without a log
	head     []byte                   // the first line of the log
}

// minLog is the size up to which the log of a small file grows, in bytes.
const minLog = 64 << 10

// savedPath returns the path of the leases on disk.
func savedPath(stateDir string) string { return filepath.Join(stateDir, "leases.json") }

// logPath returns the path of the log that follows the leases on disk.
func logPath(stateDir string) string { return filepath.Join(stateDir, "leases.log") }

// loadSaved reads the leases on disk and checks them as input from outside. They must be
// of the node with this key: the key alone decides whose copy it is. A node that has another name
// now finds its lease under the present name. A missing file is fs.ErrNotExist.
func loadSaved(stateDir, name string, key wgtypes.Key) (subnet.Saved, config.Network, error) {
	data, err := os.ReadFile(savedPath(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return subnet.Saved{}, config.Network{}, err
	}
	if err != nil {
		return subnet.Saved{}, config.Network{}, fmt.Errorf("read leases on disk: %w", err)
	}
	saved, err := subnet.DecodeSaved(data)
	if err != nil {
		return saved, config.Network{}, fmt.Errorf("%s: %w", savedPath(stateDir), err)
	}
	if log, err := os.ReadFile(logPath(stateDir)); err == nil { // without a log the file alone counts
		saved = saved.WithLog(data, log)
	}
	if saved.Self.Key != key {
		return saved, config.Network{}, fmt.Errorf("%s is of another key: it was written by node %q with key %s, and this node's key is %s",
			savedPath(stateDir), saved.Self.Node, saved.Self.Key, key)
	}
	saved.Self.Node = name
	for l := range saved.Snapshot.Leases.All() {
		if l.Key == key {
			l.Node = name
			saved.Snapshot.Leases = saved.Snapshot.Leases.With(l)
		}
	}
	n, err := config.ParseNetwork(saved.Document)
	if err != nil {
		return saved, n, fmt.Errorf("%s: %w", savedPath(stateDir), err)
	}
	return saved, n, nil
}

// save brings the disk up to date. Time and revision alone are no difference.
func (l *leasesOnDisk) save(s subnet.Saved) error {
	old, known := l.kept.Get()
	if !known || !bytes.Equal(old.Document, s.Document) || old.Self != s.Self {
		return l.write(s)
	}
	lines := subnet.LogChanges(old.Snapshot.Leases, s.Snapshot.Leases)
	switch {
	case len(lines) == 0:
		return nil
	case l.logged+len(lines) > max(l.size/2, minLog):
		return l.write(s)
	}
	return l.log(s, lines)
}

// write writes the file, without a log.
func (l *leasesOnDisk) write(s subnet.Saved) error {
	l.kept = opt.None[subnet.Saved]()
	data := s.Encode()
	if err := config.WriteFile(savedPath(l.stateDir), data, 0o600, 0o700); err != nil {
		return err
	}
	// A log that stays here follows another file, so it has no effect any more.
	if err := os.Remove(logPath(l.stateDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the log of the leases on disk: %w", err)
	}
	l.kept, l.size, l.logged, l.head = opt.Some(s), len(data), 0, subnet.LogOf(data)
	return nil
}

// log adds lines to the log. It does not wait for the disk: what a crash of the host takes from
// the log, the store has.
func (l *leasesOnDisk) log(s subnet.Saved, lines []byte) error {
	l.kept = opt.None[subnet.Saved]() // after an error the log may end in half a line
	if l.logged == 0 {
		lines = append(bytes.Clone(l.head), lines...)
	}
	file, err := os.OpenFile(logPath(l.stateDir), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of the leases on disk: %w", err)
	}
	_, err = file.Write(lines)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write the log of the leases on disk: %w", err)
	}
	l.kept, l.logged = opt.Some(s), l.logged+len(lines)
	return nil
}
