package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/subnet"
)

// leasesOnDisk is the file from which a node starts while etcd is away: the network
// document, this node's lease, and all leases.
type leasesOnDisk struct {
	stateDir string
	written  []byte // the file's content without its time and revision; nil until a write succeeded
}

// savedPath returns the path of the leases on disk.
func savedPath(stateDir string) string { return filepath.Join(stateDir, "leases.json") }

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

// save writes the file, unless the last write had the same content. Time and revision
// alone are no difference.
func (l *leasesOnDisk) save(s subnet.Saved) error {
	compared := s
	compared.At, compared.Snapshot.Revision = time.Time{}, 0
	content := compared.Encode()
	if bytes.Equal(content, l.written) {
		return nil
	}
	if err := config.WriteFile(savedPath(l.stateDir), s.Encode(), 0o600, 0o700); err != nil {
		return err
	}
	l.written = content
	return nil
}
