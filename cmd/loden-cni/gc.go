package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// defaultLeaseDir is where host-local keeps one file per address, below the network's name.
const defaultLeaseDir = "/var/lib/cni/networks"

// gc detaches what the runtime no longer knows: first by our notes, then by host-local's
// own files (an address whose note was lost, or that flannel's plugin took), because
// host-local has no GC of its own (containernetworking/plugins issue 1047). At last the
// delegate is asked. Every step is tried; the errors come together.
func gc(c call) error {
	conf := c.Conf
	errs := []error{collectNotes(conf, c.Path)}
	d, err := today(conf)
	if err != nil {
		return together(append(errs, err))
	}
	return together(append(errs, collectAddresses(conf, d, c.Path), delegateGC(conf, d, c.Path)))
}

// together makes one answer of all that went wrong; the CNI library would send the first.
func together(errs []error) error {
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	return types.NewError(types.ErrInternal, strings.ReplaceAll(err.Error(), "\n", "; "), "")
}

// collectNotes detaches every attachment with a note that is not valid any more.
func collectNotes(conf netConf, path string) error {
	notes := open(conf.DataDir, conf.Name)
	all, err := notes.list()
	errs := []error{err}
	for _, who := range all {
		if slices.Contains(conf.Valid, who) {
			continue
		}
		what, err := notes.read(who)
		if err == nil {
			err = detach(what, who, path)
		}
		if err == nil {
			err = notes.remove(who)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// collectAddresses frees host-local's addresses of containers that are not valid.
func collectAddresses(conf netConf, d delegation, path string) error {
	var made struct {
		IPAM struct {
			Type    string `json:"type"`
			DataDir string `json:"dataDir"`
		} `json:"ipam"`
	}
	if err := json.Unmarshal(d.Config, &made); err != nil {
		return fmt.Errorf("read delegate's configuration: %w", err)
	}
	if made.IPAM.Type != "host-local" {
		return nil
	}
	dir := made.IPAM.DataDir
	if dir == "" {
		dir = defaultLeaseDir
	}
	leased, err := leases(filepath.Join(dir, conf.Name))
	errs := []error{err}
	for _, who := range leased {
		if valid(conf.Valid, who) {
			continue
		}
		errs = append(errs, detach(note{Plugin: made.IPAM.Type, Config: d.Config}, who, path))
	}
	return errors.Join(errs...)
}

// leases returns who holds host-local's addresses, each once. The file of an address says
// "container ID CR LF interface"; the interface is missing in files of old versions.
func leases(dir string) ([]attachment, error) {
	files, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var all []attachment
	for _, f := range files {
		if _, err := netip.ParseAddr(f.Name()); err != nil {
			continue // its lock, or the last address it gave away
		}
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, fmt.Errorf("read address: %w", err)
		}
		id, ifname, _ := strings.Cut(strings.TrimSpace(string(data)), "\r\n")
		who := attachment{ContainerID: strings.TrimSpace(id), IfName: strings.TrimSpace(ifname)}
		if who.ContainerID != "" && !slices.Contains(all, who) {
			all = append(all, who)
		}
	}
	return all, nil
}

// valid reports whether the runtime still knows the holder of an address. One without an
// interface is known by its container alone.
func valid(known []attachment, who attachment) bool {
	return slices.ContainsFunc(known, func(k attachment) bool {
		return k.ContainerID == who.ContainerID && (who.IfName == "" || k.IfName == who.IfName)
	})
}

// detach runs a plugin's DEL for an attachment that is not this call's own. The namespace
// is named only if it still is the one of ADD: a path below /proc may be another process's
// by now.
func detach(what note, who attachment, path string) error {
	netns := what.NetNS
	if _, err := os.Stat(netns); err != nil || strings.HasPrefix(netns, "/proc/") {
		netns = ""
	}
	ifname := who.IfName
	if ifname == "" {
		ifname = "eth0"
	}
	next := invocation{Plugin: what.Plugin, Path: path, Config: what.Config, Env: []string{
		"CNI_COMMAND=DEL", "CNI_CONTAINERID=" + who.ContainerID, "CNI_NETNS=" + netns, "CNI_IFNAME=" + ifname,
	}}
	if _, err := next.run(); err != nil {
		return fmt.Errorf("collect %s: %w", who.ContainerID, err)
	}
	return nil
}

// delegateGC hands the list of valid attachments on, as the CNI specification demands.
func delegateGC(conf netConf, d delegation, path string) error {
	var out object
	if err := json.Unmarshal(d.Config, &out); err != nil {
		return fmt.Errorf("read delegate's configuration: %w", err)
	}
	if err := out.fill(map[string]any{"cni.dev/valid-attachments": conf.Valid}, nil); err != nil {
		return err
	}
	with, err := json.Marshal(out)
	if err != nil {
		return err
	}
	_, err = invocation{Plugin: d.Plugin, Path: path, Config: with}.run()
	return err
}
