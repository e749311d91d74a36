package node

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/trace"
	"github.com/loden-net/loden/subnet"
)

// bundleCommand bounds a command whose output goes into a bundle.
const bundleCommand = 3 * time.Second

// WriteBundle writes a file for an issue, a tar archive packed by gzip: the diagnosis, the
// report, the settings, and the network of this host. Private key, preshared key and password
// are taken out of every text. An existing file is replaced.
func WriteBundle(ctx context.Context, s Settings, d Diagnosis, path string) error {
	files := map[string][]byte{}
	put := func(name string, v any) {
		text, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			text = []byte(err.Error())
		}
		files[name] = text
	}
	put("doctor.json", d)
	if rep, ok := d.Report.Get(); ok {
		put("status.json", rep)
	}
	if record, err := Record(s.RunDir); err == nil && record != nil {
		files["settings.json"] = record
	}
	if links, err := (trace.Linux{}).Links(); err == nil {
		put("links.json", links)
	}
	if env, err := os.ReadFile(s.SubnetFile); err == nil {
		files["subnet.env"] = env
	}
	for name, command := range map[string][]string{
		"ip-rule.txt": {"ip", "rule"}, "ip-route.txt": {"ip", "route", "show", "table", "all"}, "ip-6-rule.txt": {"ip", "-6", "rule"},
		"ip-6-route.txt": {"ip", "-6", "route", "show", "table", "all"}, "nft.txt": {"nft", "list", "ruleset"}, "iptables.txt": {"iptables-save"},
		"ip6tables.txt": {"ip6tables-save"}, "uname.txt": {"uname", "-a"},
	} {
		files[name] = outputOf(ctx, command)
	}
	return writeArchive(path, files, secretsOf(s))
}

// outputOf returns the output of a command, or why there is none.
func outputOf(ctx context.Context, command []string) []byte {
	ctx, cancel := context.WithTimeout(ctx, bundleCommand)
	defer cancel()
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput()
	if err != nil {
		return append(out, []byte("\n"+err.Error()+"\n")...)
	}
	return out
}

// secretsOf returns the texts that must not leave the host.
func secretsOf(s Settings) []string {
	var out []string
	if key, err := os.ReadFile(backend.KeyPath(s.StateDir)); err == nil {
		out = append(out, strings.TrimSpace(string(key)))
	}
	if data, err := os.ReadFile(savedPath(s.StateDir)); err == nil {
		if saved, err := subnet.DecodeSaved(data); err == nil {
			out = append(out, presharedKeys(saved.Document)...)
		}
	}
	return append(out, string(s.Etcd.Password))
}

// presharedKeys returns the preshared key of a network document, which has flannel's form.
func presharedKeys(document []byte) []string {
	var d struct {
		Backend struct{ PSK string }
	}
	if json.Unmarshal(document, &d) != nil {
		return nil
	}
	return []string{d.Backend.PSK}
}

// redacted is the text in the place of a secret.
const redacted = "[redacted]"

// writeArchive writes the files without the secrets.
func writeArchive(path string, files map[string][]byte, secrets []string) error {
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	archive := tar.NewWriter(zip)
	var errs []error
	for name, data := range files {
		for _, secret := range secrets {
			if len(secret) >= 4 { // a shorter text is no secret, and would tear other words apart
				data = bytes.ReplaceAll(data, []byte(secret), []byte(redacted))
			}
		}
		errs = append(errs, archive.WriteHeader(&tar.Header{Name: "loden-bundle/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: time.Now()}))
		_, err := archive.Write(data)
		errs = append(errs, err)
	}
	if err := errors.Join(append(errs, archive.Close(), zip.Close())...); err != nil {
		return fmt.Errorf("pack bundle: %w", err)
	}
	return config.WriteFile(path, packed.Bytes(), 0o600, 0o755)
}
