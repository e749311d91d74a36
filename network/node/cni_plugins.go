package node

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
)

// ownPlugin is ours with any content; distributions ship the reference plugins too.
const ownPlugin = "loden-cni"

// plugins are the programs that the configuration needs.
func plugins() []string { return []string{ownPlugin, "bridge", "host-local", "loopback", "portmap"} }

// manifestName is the file beside the plugins that says which of them were installed here,
// by name and SHA-256, so that a distribution's own plugins are neither overwritten nor
// removed.
const manifestName = ".loden-plugins"

// manifest maps a plugin's name to the SHA-256 of what was installed.
type manifest map[string]string

// installPlugins compares the plugins with their sources. A reference plugin that somebody
// else put there is used as it is.
func (c cniInstall) installPlugins() ([]diff.Change, error) {
	if c.binDir == "" {
		return nil, nil
	}
	owned, err := c.readManifest()
	if err != nil {
		return nil, err
	}
	next := manifest{}
	var changes []diff.Change
	for _, name := range plugins() {
		p := plugin{name: name, dst: filepath.Join(c.binDir, name), owned: owned[name]}
		verb, hash, err := p.compare(c.sources)
		if err != nil {
			return nil, err
		}
		if hash != "" {
			next[name] = hash
		}
		if verb != "" {
			changes = append(changes, diff.Change{Part: "cni", Verb: verb, Object: p.dst, Run: p.install})
		}
	}
	if want := next.bytes(); !bytes.Equal(want, owned.bytes()) {
		path := c.manifestPath()
		// Written first: an entry without its file claims nothing, a file without its entry
		// would be taken for another program's.
		first := diff.Change{Part: "cni", Verb: "set", Object: path, Run: func(context.Context) error {
			return config.WriteFile(path, want, 0o644, 0o755)
		}}
		changes = append([]diff.Change{first}, changes...)
	}
	return changes, nil
}

// removePlugins removes the plugins of the manifest whose content is still the installed
// content.
func (c cniInstall) removePlugins() ([]diff.Change, error) {
	if c.binDir == "" {
		return nil, nil
	}
	owned, err := c.readManifest()
	if err != nil {
		return nil, err
	}
	var changes []diff.Change
	for _, name := range plugins() {
		path := filepath.Join(c.binDir, name)
		hash, err := hashOf(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if err == nil && hash == owned[name] {
			changes = append(changes, removal(path))
		}
	}
	if len(owned) > 0 {
		changes = append(changes, removal(c.manifestPath()))
	}
	return changes, nil
}

// plugin is a program to install.
type plugin struct {
	name  string
	src   string // from findPlugin
	dst   string
	owned string // the SHA-256 that the manifest has; "" when it is not ours
}

// compare returns the verb of the change that the plugin needs ("" for no change), and the SHA-256 that
// the manifest should have ("" when the plugin there is not ours). The usual case, nothing to
// do, costs two calls of stat and reads no file.
func (p *plugin) compare(sources []string) (verb, hash string, err error) {
	there, err := os.Stat(p.dst)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return "", "", fmt.Errorf("look at plugin: %w", err)
	}
	src, err := findPlugin(p.name, sources)
	if err != nil {
		if missing {
			return "", "", err
		}
		return "", p.owned, nil // the plugin exists, and no source has it
	}
	p.src = filepath.Join(src.dir, p.name)
	if !missing && p.owned != "" && there.Size() == src.info.Size() && there.ModTime().Equal(src.info.ModTime()) {
		return "", p.owned, nil
	}
	hash, err = hashOf(p.src)
	if err != nil {
		return "", "", err
	}
	if missing {
		return "add", hash, nil
	}
	found, err := hashOf(p.dst)
	switch {
	case err != nil:
		return "", "", err
	case found == hash:
		return "", p.owned, nil
	case found == p.owned, p.name == ownPlugin:
		return "replace", hash, nil
	}
	return "", "", nil // a distribution's
}

// install copies the plugin in a single step, so that a pod that is made meanwhile finds the
// old or the new program whole (a plain copy fails with "text file busy"). The time of the
// source is copied too: it is how the next comparison sees that nothing changed.
func (p *plugin) install(context.Context) error {
	data, err := os.ReadFile(p.src)
	if err != nil {
		return fmt.Errorf("read plugin: %w", err)
	}
	info, err := os.Stat(p.src)
	if err != nil {
		return fmt.Errorf("read plugin: %w", err)
	}
	if err := config.WriteFile(p.dst, data, 0o755, 0o755); err != nil {
		return err
	}
	return os.Chtimes(p.dst, info.ModTime(), info.ModTime())
}

// source is a plugin to install from.
type source struct {
	dir  string
	info os.FileInfo
}

// findPlugin returns the first source that has the plugin.
func findPlugin(name string, sources []string) (source, error) {
	for _, dir := range sources {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
			return source{dir: dir, info: info}, nil
		}
	}
	return source{}, fmt.Errorf("find plugin %s in %s: not there; name its directory with --cni-source-dir", name, strings.Join(sources, ", "))
}

// hashOf returns the SHA-256 of a file's content in hexadecimal digits.
func hashOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read plugin: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read plugin: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (c cniInstall) manifestPath() string { return filepath.Join(c.binDir, manifestName) }

// readManifest returns the plugins that were installed here; without a manifest it is empty.
func (c cniInstall) readManifest() (manifest, error) {
	data, err := os.ReadFile(c.manifestPath())
	if errors.Is(err, fs.ErrNotExist) {
		return manifest{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read list of installed plugins: %w", err)
	}
	return parseManifest(data), nil
}

// parseManifest reads the form of sha256sum(1): hash, two spaces, name. A line of any other
// form is skipped.
func parseManifest(data []byte) manifest {
	l := manifest{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		hash, name, ok := strings.Cut(lines.Text(), "  ")
		if raw, err := hex.DecodeString(hash); ok && err == nil && len(raw) == sha256.Size {
			l[name] = hash
		}
	}
	return l
}

// bytes returns the manifest in the order of plugins.
func (l manifest) bytes() []byte {
	var b bytes.Buffer
	for _, name := range plugins() {
		if hash, ok := l[name]; ok {
			fmt.Fprintf(&b, "%s  %s\n", hash, name)
		}
	}
	return b.Bytes()
}
