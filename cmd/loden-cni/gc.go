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

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// defaultLeaseDir is the directory in which host-local keeps a file per address, below the
// network's name.
const defaultLeaseDir = "/var/lib/cni/networks"

// gc detaches the attachments that the runtime no longer knows: first by the plugin's records,
// then by host-local's own files, for addresses whose record was lost or that flannel's plugin
// took. At last it runs the delegate's GC. It tries every step and joins the errors.
func gc(c call) error {
	conf := c.Conf
	errs := []error{collectRecords(conf, c.Path)}
	d, err := delegateForGC(conf)
	if err != nil {
		return joined(append(errs, err))
	}
	return joined(append(errs, collectAddresses(conf, d, c.Path), delegateGC(conf, d, c.Path)))
}

// delegateForGC returns the delegation of a GC. GC frees addresses by their holders and does not
// look at ranges, but host-local refuses a configuration without a range. So a node without
// subnet.env, which a reboot removes with /run, gets a range for documentation (RFC 5737).
func delegateForGC(conf netConf) (delegation, error) {
	if d, err := delegateNow(conf); err == nil {
		return d, nil
	}
	placeholder := opt.Dual[netip.Prefix]{V4: opt.Some(netip.MustParsePrefix("192.0.2.0/24"))}
	return delegate(conf, config.Env{Networks: placeholder, Subnets: placeholder, MTU: 1280})
}

// joined makes a single CNI error of all errors; the CNI library would print the first alone.
func joined(errs []error) error {
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	return types.NewError(types.ErrInternal, strings.ReplaceAll(err.Error(), "\n", "; "), "")
}

// collectRecords detaches every attachment that has a record and that the runtime does not know.
func collectRecords(conf netConf, path string) error {
	recs := openRecords(conf.DataDir, conf.Name)
	all, err := recs.list()
	errs := []error{err}
	for _, a := range all {
		if slices.Contains(conf.Valid, a) {
			continue
		}
		rec, err := recs.read(a)
		if err == nil {
			err = detach(rec, a, path)
		}
		if err == nil {
			err = recs.remove(a)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// collectAddresses frees host-local's addresses of containers that the runtime does not know.
func collectAddresses(conf netConf, d delegation, path string) error {
	var ipam struct {
		Type    string `json:"type"`
		DataDir string `json:"dataDir"`
	}
	if err := json.Unmarshal(d.Config["ipam"], &ipam); err != nil {
		return fmt.Errorf("read ipam of delegate: %w", err)
	}
	if ipam.Type != "host-local" {
		return nil
	}
	dir := ipam.DataDir
	if dir == "" {
		dir = defaultLeaseDir
	}
	leased, err := leases(filepath.Join(dir, conf.Name))
	errs := []error{err}
	for _, a := range leased {
		if valid(conf.Valid, a) {
			continue
		}
		errs = append(errs, detach(record{Plugin: ipam.Type, Config: d.Config}, a, path))
	}
	return errors.Join(errs...)
}

// leases returns the attachments that hold host-local's addresses, each once. The file of an
// address has "container ID CR LF interface"; old versions of host-local wrote no interface.
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
			continue // host-local's lock, or the address that it assigned last
		}
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, fmt.Errorf("read address: %w", err)
		}
		id, ifname, _ := strings.Cut(strings.TrimSpace(string(data)), "\r\n")
		a := attachment{ContainerID: strings.TrimSpace(id), IfName: strings.TrimSpace(ifname)}
		if a.ContainerID != "" && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all, nil
}

// valid reports whether the runtime still knows the holder of an address. A holder without an
// interface is compared by its container alone.
func valid(known []attachment, a attachment) bool {
	return slices.ContainsFunc(known, func(k attachment) bool {
		return k.ContainerID == a.ContainerID && (a.IfName == "" || k.IfName == a.IfName)
	})
}

// detach runs a plugin's DEL for an attachment other than the call's own. It names the network
// namespace when the path of ADD still exists, and never a path below /proc, which may belong
// to another process by now.
func detach(rec record, a attachment, path string) error {
	netns := rec.NetNS
	if _, err := os.Stat(netns); err != nil || strings.HasPrefix(netns, "/proc/") {
		netns = ""
	}
	ifname := a.IfName
	if ifname == "" {
		ifname = "eth0"
	}
	data, err := rec.Config.marshal(nil)
	if err != nil {
		return err
	}
	next := invocation{Plugin: rec.Plugin, Path: path, Config: data, Env: []string{
		"CNI_COMMAND=DEL", "CNI_CONTAINERID=" + a.ContainerID, "CNI_NETNS=" + netns, "CNI_IFNAME=" + ifname,
	}}
	if _, err := next.run(); err != nil {
		return fmt.Errorf("collect %s: %w", a.ContainerID, err)
	}
	return nil
}

// delegateGC hands the list of valid attachments on, as the CNI specification demands.
func delegateGC(conf netConf, d delegation, path string) error {
	data, err := d.Config.marshal(map[string]any{"cni.dev/valid-attachments": conf.Valid})
	if err != nil {
		return err
	}
	_, err = invocation{Plugin: d.Plugin, Path: path, Config: data}.run()
	return err
}
