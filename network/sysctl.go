package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
)

// ipv6Forwarding is the setting that forwards IPv6 packets of all interfaces.
const ipv6Forwarding = "net/ipv6/conf/all/forwarding"

// Sysctl is a kernel setting, named by its path below /proc/sys.
type Sysctl struct{ Path, Value string }

// sysctls is the part of the reconciler that owns kernel settings. A setting cannot carry a
// mark, so the value from before our first write is kept in a file below the run
// directory, which like the settings lasts until the next boot.
type sysctls struct {
	before string // file of the original values

	// shared reports whether another Loden network runs on this host. Its packets need
	// forwarding too, so the settings then keep our values. May be nil: no.
	shared func() (bool, error)
}

// found is a setting's value from before our first write, and the value that we wrote.
type found struct{ Was, Set string }

// changes compares each wanted setting with /proc/sys; settings that we changed and that
// are no longer wanted get their original value back, unless another program has changed them.
// A setting that cannot be read does not keep the other settings from theirs.
func (s sysctls) changes(_ context.Context, want []Sysctl) ([]diff.Change, error) {
	memory, err := s.load()
	if err != nil {
		return nil, err
	}
	var out []diff.Change
	var errs []error
	wanted := map[string]bool{}
	for _, w := range want {
		wanted[w.Path] = true
		have, err := readSysctl(w.Path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if have != w.Value {
			out = append(out, diff.Change{Part: sysctlsPart, Verb: "set", Object: fmt.Sprintf("%s %s (was %s)", name(w.Path), w.Value, have),
				Run: func(context.Context) error { return s.set(w, have) }})
		}
	}
	for _, path := range slices.Sorted(maps.Keys(memory)) {
		if f := memory[path]; !wanted[path] && !stays(path, wanted) {
			out = append(out, diff.Change{Part: sysctlsPart, Verb: "restore", Object: fmt.Sprintf("%s %s", name(path), f.Was),
				Run: func(context.Context) error { return s.restore(path, f) }})
		}
	}
	return out, errors.Join(errs...)
}

// stays reports whether a setting that is not wanted any more keeps our value: accept_ra of
// an interface whose router was silent for a while. Its route has gone, and with the
// original value the kernel would ignore the router for as long as it forwards.
func stays(path string, wanted map[string]bool) bool {
	return wanted[ipv6Forwarding] && strings.HasPrefix(path, "net/ipv6/conf/") && strings.HasSuffix(path, "/accept_ra")
}

// set remembers the original value the first time, then writes.
func (s sysctls) set(w Sysctl, have string) error {
	memory, err := s.load()
	if err != nil {
		return err
	}
	if f, ok := memory[w.Path]; ok {
		have = f.Was
	}
	memory[w.Path] = found{Was: have, Set: w.Value}
	return errors.Join(s.save(memory), writeSysctl(w.Path, w.Value))
}

// restore writes the original value back, unless another network on this host needs ours,
// and forgets it.
func (s sysctls) restore(path string, f found) error {
	needed := false
	if s.shared != nil {
		var err error
		if needed, err = s.shared(); err != nil {
			return err
		}
	}
	have, err := readSysctl(path)
	if err == nil && have == f.Set && !needed {
		err = writeSysctl(path, f.Was)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // the interface it belonged to is gone
		return err
	}
	memory, err := s.load()
	if err != nil {
		return err
	}
	delete(memory, path)
	return s.save(memory)
}

// bootID is the entry of the file that names the boot in which the settings were changed. A
// file that outlived a reboot, because the run directory is on a disk, says nothing about
// the settings of this boot. Its form is that of a setting, which older versions skip.
const bootID = "kernel/random/boot_id"

// load reads the file; a garbled file counts as empty, since the settings matter more than
// the way back, and so does the file of another boot.
func (s sysctls) load() (map[string]found, error) {
	memory := map[string]found{}
	data, err := os.ReadFile(s.before)
	if errors.Is(err, fs.ErrNotExist) {
		return memory, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the original settings: %w", err)
	}
	if json.Unmarshal(data, &memory) != nil {
		return map[string]found{}, nil
	}
	if boot, ok := memory[bootID]; ok {
		if now, err := readSysctl(bootID); err == nil && now != boot.Was {
			return map[string]found{}, nil
		}
		delete(memory, bootID)
	}
	return memory, nil
}

func (s sysctls) save(memory map[string]found) error {
	if len(memory) == 0 {
		err := os.Remove(s.before)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	file := maps.Clone(memory)
	if boot, err := readSysctl(bootID); err == nil {
		file[bootID] = found{Was: boot, Set: boot}
	}
	data, err := json.Marshal(file)
	if err != nil {
		return err
	}
	return config.WriteFile(s.before, data, 0o600, 0o755)
}

func readSysctl(path string) (string, error) {
	data, err := os.ReadFile(filepath.Join("/proc/sys", path))
	if err != nil {
		return "", fmt.Errorf("read sysctl %s: %w", name(path), err)
	}
	return strings.TrimSpace(string(data)), nil
}

func writeSysctl(path, value string) error {
	if err := os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0o644); err != nil { // a kernel file
		return fmt.Errorf("set sysctl %s to %s: %w", name(path), value, err)
	}
	return nil
}

// name returns the dotted form that sysctl(8) uses. An interface's own dots become slashes
// there, as sysctl(8) has it.
func name(path string) string {
	return strings.NewReplacer("/", ".", ".", "/").Replace(path)
}
