package backend

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
)

// endpoints are the published endpoints of peers by the peers' keys. A device remembers those
// that it applied last: without them it could not tell a new publication, which must be
// followed at once, from an old publication that the peer has roamed away from.
type endpoints map[wgtypes.Key]netip.AddrPort

// record is the memory of a device. It belongs to the interface and goes with it: it outlives
// daemons and engines, and not a reboot.
type record interface {
	load() (endpoints, error)
	save(endpoints) error
	// add remembers the endpoints of some peers; an invalid endpoint forgets a peer's. Its cost
	// does not depend on the number of the other peers.
	add(some endpoints) error
}

// endpointFile is the record in the run directory. Additions are lines at its end, which count
// more than earlier lines of the same peer; they are folded in after some thousands.
type endpointFile struct {
	path  string
	added atomic.Int64 // lines since the file was written as a whole
}

// foldAfter is the number of added lines after which the file is written as a whole: 300 KiB,
// half of the size of the file of 10,000 peers.
const foldAfter = 4096

// EndpointPath returns the file in which the device of a userspace engine or of the kernel
// remembers the endpoints that were published for its peers.
func EndpointPath(runDir, iface string) string { return filepath.Join(runDir, iface+".endpoints") }

// load reads the record. A missing file is an empty record.
func (f *endpointFile) load() (endpoints, error) {
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return endpoints{}, nil
	}
	if err != nil {
		return endpoints{}, fmt.Errorf("read published endpoints: %w", err)
	}
	return parseEndpoints(text), nil
}

func (f *endpointFile) save(all endpoints) error {
	if err := config.WriteFile(f.path, all.text(), 0o600, 0o755); err != nil {
		return fmt.Errorf("remember published endpoints: %w", err)
	}
	f.added.Store(0)
	return nil
}

func (f *endpointFile) add(some endpoints) error {
	if f.added.Add(int64(len(some))) > foldAfter {
		all, err := f.load()
		if err != nil {
			return err
		}
		for key, at := range some {
			all.set(key, at)
		}
		return f.save(all)
	}
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("remember published endpoints: %w", err)
	}
	_, err = file.Write(some.text())
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("remember published endpoints: %w", err)
	}
	return nil
}

// set remembers an endpoint; an invalid endpoint is forgotten.
func (all endpoints) set(key wgtypes.Key, at netip.AddrPort) {
	if at.IsValid() {
		all[key] = at
	} else {
		delete(all, key)
	}
}

// forgotten stands in the place of the endpoint of a peer that is forgotten.
const forgotten = "-"

// text returns a line for each peer, sorted by key: "KEY ADDRESS:PORT", or "KEY -".
func (all endpoints) text() []byte {
	var b bytes.Buffer
	for _, k := range slices.SortedFunc(maps.Keys(all), func(a, b wgtypes.Key) int { return bytes.Compare(a[:], b[:]) }) {
		at := forgotten
		if all[k].IsValid() {
			at = all[k].String()
		}
		fmt.Fprintf(&b, "%s %s\n", k, at)
	}
	return b.Bytes()
}

// parseEndpoints reads the lines of text; a later line of a peer counts. It leaves out a line that is damaged: the record of
// that peer is then unknown, which is safe, and is written again by the next configuration.
func parseEndpoints(text []byte) endpoints {
	all := endpoints{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		name, at, _ := strings.Cut(lines.Text(), " ")
		key, err := wgtypes.ParseKey(name)
		if err != nil {
			continue
		}
		if endpoint, err := netip.ParseAddrPort(at); err == nil && endpoint.IsValid() {
			all[key] = endpoint
		} else if at == forgotten {
			delete(all, key)
		}
	}
	return all
}
