package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// add attaches a container: a note first, so that whatever happens next can be undone,
// then the delegate. When the delegate fails the runtime owes a DEL, and the note waits for
// it; an ADD that fails because the attachment exists leaves that one as it is.
func add(c call) error {
	conf := c.Conf
	env, err := loadEnv(conf.SubnetFile)
	if err != nil {
		return err
	}
	d, err := delegate(conf, env)
	if err != nil {
		return err
	}
	if err := checkBridge(d, env); err != nil {
		return err
	}
	notes, who := open(conf.DataDir, conf.Name), c.attachment()
	before, err := notes.read(who)
	again := err == nil
	if err := notes.write(who, note{Plugin: d.Plugin, NetNS: c.NetNS, Config: d.Config}); err != nil {
		return err
	}
	next := invocation{Plugin: d.Plugin, Path: c.Path, Config: d.Config}
	if !again {
		return next.become()
	}
	result, err := next.run()
	if err != nil {
		return errors.Join(err, notes.write(who, before))
	}
	_, err = os.Stdout.Write(result) // in the network's own version, which the delegate was given
	return err
}

// del detaches a container. The note goes only after the delegate's DEL has succeeded, so
// that the runtime's retry finds it. Without a note there was no ADD of ours, or it is lost,
// or another plugin (flannel's) made the attachment: then the delegate is asked with what
// it would be given today, which frees the addresses in each of these cases.
func del(c call) error {
	conf := c.Conf
	notes, who := open(conf.DataDir, conf.Name), c.attachment()
	what, err := notes.read(who)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintln(os.Stderr, "loden-cni:", err)
		}
		d, err := today(conf)
		if err != nil {
			fmt.Fprintln(os.Stderr, "loden-cni: nothing is known of this container:", err)
			return nil // no note, no subnet: DEL of what is not there is a success
		}
		what = note{Plugin: d.Plugin, Config: d.Config}
	}
	with, err := withPrevious(what.Config, conf)
	if err != nil {
		return err
	}
	if _, err := (invocation{Plugin: what.Plugin, Path: c.Path, Config: with}).run(); err != nil {
		return err
	}
	return notes.remove(who)
}

// check asks the delegate whether the attachment is as it was made, and compares its
// addresses with the subnet that the node holds now.
func check(c call) error {
	conf := c.Conf
	who := c.attachment()
	what, err := open(conf.DataDir, conf.Name).read(who)
	if errors.Is(err, fs.ErrNotExist) {
		return types.NewError(types.ErrUnknownContainer, fmt.Sprintf("container %s has no interface %s on network %s", who.ContainerID, who.IfName, conf.Name), "")
	}
	if err != nil {
		return err
	}
	with, err := withPrevious(what.Config, conf)
	if err != nil {
		return err
	}
	if _, err := (invocation{Plugin: what.Plugin, Path: c.Path, Config: with}).run(); err != nil {
		return err
	}
	env, err := loadEnv(conf.SubnetFile)
	if err != nil {
		return err
	}
	addrs, err := addresses(conf)
	if err != nil {
		return err
	}
	return within(env.Subnets, addrs)
}

// addresses returns what the previous result gave to the container. Its member "ips" has
// been the same since CNI 0.3.0.
func addresses(conf netConf) ([]netip.Addr, error) {
	var result struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(conf.PrevResult, &result); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("read previous result: %v", err), "")
	}
	var all []netip.Addr
	for _, ip := range result.IPs {
		all = append(all, ip.Address.Addr().Unmap())
	}
	return all, nil
}

// within says which of the addresses is not in the node's subnet of its family.
func within(subnets opt.Dual[netip.Prefix], addrs []netip.Addr) error {
	for _, a := range addrs {
		subnet, ok := subnets.Of(opt.FamilyOf(a)).Get()
		if !ok {
			return fmt.Errorf("the container has %s but the node holds no %s subnet: delete the pod", a, opt.FamilyOf(a))
		}
		if !subnet.Contains(a) {
			return fmt.Errorf("the container has %s but the node's subnet is %s: delete the pod, its next one gets an address there", a, subnet)
		}
	}
	return nil
}

// today returns what an ADD would be delegated as now.
func today(conf netConf) (delegation, error) {
	env, err := loadEnv(conf.SubnetFile)
	if err != nil {
		return delegation{}, err
	}
	return delegate(conf, env)
}

// loadEnv reads subnet.env. That it is not there yet is "try again later": the daemon
// writes it last, when the data path stands.
func loadEnv(path string) (config.Env, error) {
	found, err := config.LoadEnv(path)
	if err != nil {
		return config.Env{}, types.NewError(types.ErrIOFailure, err.Error(), "")
	}
	env, ok := found.Get()
	if !ok {
		return config.Env{}, types.NewError(types.ErrTryAgainLater,
			fmt.Sprintf("%s is not there yet: loden writes it when the node's data path stands, see 'loden status' on this node", path), "")
	}
	if err := complete(env); err != nil {
		return config.Env{}, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("%s: %v", path, err), "")
	}
	return env, nil
}

// withPrevious puts the previous result into the delegate's configuration for one call,
// and its version with it, should the network have another one now than at ADD.
func withPrevious(delegated json.RawMessage, conf netConf) ([]byte, error) {
	if len(conf.PrevResult) == 0 {
		return delegated, nil
	}
	var out object
	if err := json.Unmarshal(delegated, &out); err != nil {
		return nil, fmt.Errorf("read delegate's configuration: %w", err)
	}
	if err := out.fill(map[string]any{"prevResult": conf.PrevResult, "cniVersion": conf.CNIVersion}, nil); err != nil {
		return nil, err
	}
	return json.Marshal(out)
}

// attachment names what a call is about.
func (c call) attachment() attachment {
	return attachment{ContainerID: c.ContainerID, IfName: c.IfName}
}
