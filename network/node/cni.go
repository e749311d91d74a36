package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
)

// conflistName sorts as the names of other CNI plugins do: a container runtime uses the
// configuration that sorts first.
const conflistName = "10-loden.conflist"

// cniInstall puts the CNI plugins and their configuration where a container runtime looks
// for them. It has the shape of a part of the reconciler: list, compare, name the changes.
// Its changes are to be run last, when the data path stands: the configuration's presence
// tells kubelet that pods can be made.
type cniInstall struct {
	confDir string   // "" installs no configuration
	binDir  string   // "" installs no plugins
	sources []string // where the plugins to install are found
	conf    conflist
}

// conflist is the part of the configuration that depends on this node.
type conflist struct {
	SubnetFile, Socket, Tunnel string
}

// newCNI returns the installation that the node's settings ask for. With the zero settings
// it is empty.
func newCNI(s Settings) (cniInstall, error) {
	c := cniInstall{
		confDir: s.CNI.ConfDir, binDir: s.CNI.BinDir, sources: []string{s.CNI.Source},
		conf: conflist{SubnetFile: s.SubnetFile, Socket: socketPath(s.RunDir), Tunnel: s.Interface},
	}
	if s.CNI.Source == "" {
		self, err := os.Executable()
		if err != nil {
			return cniInstall{}, fmt.Errorf("find the CNI plugins beside this program: %w", err)
		}
		c.sources = []string{filepath.Dir(self), filepath.Join(filepath.Dir(self), "cni")}
	}
	return c, nil
}

// install returns the changes that install the plugins and, last, the configuration.
func (c cniInstall) install(context.Context) ([]diff.Change, error) {
	changes, err := c.installPlugins()
	if err != nil || c.confDir == "" {
		return changes, err
	}
	want, err := c.conf.bytes()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(c.confDir, conflistName)
	have, err := os.ReadFile(path)
	verb := "replace"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		verb = "add"
	case err != nil:
		return nil, fmt.Errorf("read CNI configuration: %w", err)
	case bytes.Equal(have, want):
		return changes, nil
	}
	return append(changes, diff.Change{Part: "cni", Verb: verb, Object: path, Run: func(context.Context) error {
		return config.WriteFile(path, want, 0o644, 0o755)
	}}), nil
}

// remove returns the changes that remove our files: the configuration first, so that no pod
// is sent to a plugin that is gone. Files of other programs stay.
func (c cniInstall) remove(context.Context) ([]diff.Change, error) {
	var changes []diff.Change
	if c.confDir != "" {
		path := filepath.Join(c.confDir, conflistName)
		have, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read CNI configuration: %w", err)
		}
		if err == nil && isOurs(have) {
			changes = append(changes, removal(path))
		}
	}
	plugins, err := c.removePlugins()
	return append(changes, plugins...), err
}

// conflicts returns the configurations that a runtime would take before ours, because their
// names sort earlier.
func (c cniInstall) conflicts() ([]string, error) {
	if c.confDir == "" {
		return nil, nil
	}
	files, err := os.ReadDir(c.confDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list CNI configurations: %w", err)
	}
	var earlier []string
	for _, f := range files {
		switch filepath.Ext(f.Name()) {
		case ".conf", ".conflist", ".json": // the endings that libcni reads
			if f.Name() < conflistName {
				earlier = append(earlier, filepath.Join(c.confDir, f.Name()))
			}
		}
	}
	return earlier, nil
}

// removal is the change that removes a file.
func removal(path string) diff.Change {
	return diff.Change{Part: "cni", Verb: "delete", Object: path, Run: func(context.Context) error {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}}
}

// bytes returns the configuration. Old runtimes read "cniVersion" alone and would refuse
// 1.1.0; those that know 1.1.0, and with it STATUS and GC, read "cniVersions" too.
func (c conflist) bytes() ([]byte, error) {
	type object map[string]any
	data, err := json.MarshalIndent(object{
		"cniVersion":  "1.0.0",
		"cniVersions": []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"},
		"name":        "loden",
		"plugins": []object{
			{
				"type": "loden-cni", "subnetFile": c.SubnetFile, "socket": c.Socket, "tunnel": c.Tunnel,
				"delegate": object{"hairpinMode": true, "isDefaultGateway": true},
			},
			{"type": "portmap", "capabilities": object{"portMappings": true}},
		},
	}, "", "  ")
	return append(data, '\n'), err
}

// isOurs reports whether a configuration is one that bytes wrote, now or in an older
// version, and not somebody's own under our name.
func isOurs(data []byte) bool {
	var list struct {
		Name    string `json:"name"`
		Plugins []struct {
			Type string `json:"type"`
		} `json:"plugins"`
	}
	return json.Unmarshal(data, &list) == nil && list.Name == "loden" &&
		len(list.Plugins) > 0 && strings.HasPrefix(list.Plugins[0].Type, "loden")
}
