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
}

// endpointFile is the record in the run directory.
type endpointFile struct{ path string }

// EndpointPath returns the file in which the device of a userspace engine or of the kernel
// remembers the endpoints that were published for its peers.
func EndpointPath(runDir, iface string) string { return filepath.Join(runDir, iface+".endpoints") }

// load reads the record. A missing file is an empty record.
func (f endpointFile) load() (endpoints, error) {
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return endpoints{}, nil
	}
	if err != nil {
		return endpoints{}, fmt.Errorf("read published endpoints: %w", err)
	}
	return parseEndpoints(text), nil
}

func (f endpointFile) save(all endpoints) error {
	if err := config.WriteFile(f.path, all.text(), 0o600, 0o755); err != nil {
		return fmt.Errorf("remember published endpoints: %w", err)
	}
	return nil
}

// text returns a line for each peer, sorted by key: "KEY ADDRESS:PORT".
func (all endpoints) text() []byte {
	var b bytes.Buffer
	for _, k := range slices.SortedFunc(maps.Keys(all), func(a, b wgtypes.Key) int { return bytes.Compare(a[:], b[:]) }) {
		fmt.Fprintf(&b, "%s %s\n", k, all[k])
	}
	return b.Bytes()
}

// parseEndpoints reads the lines of text. It leaves out a line that is damaged: the record of
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
		}
	}
	return all
}
