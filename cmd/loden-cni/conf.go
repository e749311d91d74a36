package main

import (
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
)

// Defaults of the keys that a configuration may leave out. The file is flannel's, so that
// its conflist works by changing "type"; the directory is not, so that neither plugin reads
// the other's records.
const (
	defaultSubnetFile = "/run/flannel/subnet.env"
	defaultDataDir    = "/var/lib/cni/loden"
	defaultSocket     = "/run/loden/loden.sock"
	defaultTunnel     = "loden0"
)

// object is a JSON object whose members are handed on byte for byte.
type object map[string]json.RawMessage

// netConf is the plugin's configuration: flannel's keys, and Loden's "socket" and "tunnel".
type netConf struct {
	CNIVersion    string          `json:"cniVersion"`
	Name          string          `json:"name"`
	SubnetFile    string          `json:"subnetFile"`
	DataDir       string          `json:"dataDir"`
	Delegate      object          `json:"delegate"`
	IPAM          object          `json:"ipam"`
	RuntimeConfig json.RawMessage `json:"runtimeConfig"`
	Socket        string          `json:"socket"` // the daemon's control socket
	Tunnel        string          `json:"tunnel"` // the daemon's interface

	PrevResult json.RawMessage      `json:"prevResult"`
	Valid      []types.GCAttachment `json:"cni.dev/valid-attachments"`
}

// parseConf reads a configuration and fills in the defaults. It refuses the same mistakes as
// flannel's plugin, with the same messages, because operators search for these.
func parseConf(data []byte) (netConf, error) {
	conf := netConf{
		SubnetFile: defaultSubnetFile, DataDir: defaultDataDir,
		Socket: defaultSocket, Tunnel: defaultTunnel,
	}
	if err := json.Unmarshal(data, &conf); err != nil {
		return netConf{}, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("read configuration: %v", err), "")
	}
	if !isName(conf.Name) {
		return netConf{}, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("name of the network is %q: a name starts with a letter or digit and has letters, digits, '.', '_' and '-' only", conf.Name), "")
	}
	for _, key := range []string{"name", "ipam"} {
		if _, ok := conf.Delegate[key]; ok {
			return netConf{}, types.NewError(types.ErrInvalidNetworkConfig,
				fmt.Sprintf("'delegate' dictionary must not have '%s' field, it'll be set by loden-cni", key), "")
		}
	}
	if _, err := conf.Delegate.word("type", ""); err != nil {
		return netConf{}, types.NewError(types.ErrInvalidNetworkConfig,
			"'delegate' dictionary, if present, must have (string) 'type' field", "")
	}
	if _, err := conf.IPAM.word("type", ""); err != nil {
		return netConf{}, types.NewError(types.ErrInvalidNetworkConfig, "'ipam' dictionary: 'type' must be a string", "")
	}
	return conf, nil
}

// word returns the string at key, or other when the key is absent.
func (o object) word(key, other string) (string, error) {
	raw, ok := o[key]
	if !ok {
		return other, nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("read %q: %w", key, err)
	}
	return s, nil
}

// flag reports whether the member at key is the boolean true.
func (o object) flag(key string) bool {
	var b bool
	return json.Unmarshal(o[key], &b) == nil && b
}
