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

// add attaches a container. It writes the record before it runs the delegate, so that a DEL can
// undo an ADD that ended halfway. When the delegate fails, the runtime follows with a DEL, which
// needs the record. When the delegate fails because the attachment exists, add puts the old
// record back.
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
	if err := prepareBridge(d, env); err != nil {
		return err
	}
	recs, a := openRecords(conf.DataDir, conf.Name), c.attachment()
	before, err := recs.read(a)
	again := err == nil
	if err := recs.write(a, record{Plugin: d.Plugin, NetNS: c.NetNS, Config: d.Config}); err != nil {
		return err
	}
	data, err := d.Config.marshal(nil)
	if err != nil {
		return err
	}
	next := invocation{Plugin: d.Plugin, Path: c.Path, Config: data}
	if !again {
		return next.become()
	}
	result, err := next.run()
	if err != nil {
		return errors.Join(err, recs.write(a, before))
	}
	_, err = os.Stdout.Write(result) // the delegate printed it in the network's CNI version
	return err
}

// del detaches a container. It removes the record after the delegate's DEL has succeeded, so
// that the runtime's retry finds the record. Without a record there was no ADD, or the record is
// lost, or flannel's plugin made the attachment: then the delegate's DEL gets the configuration
// that an ADD would get now, which frees the addresses in each of these cases.
func del(c call) error {
	conf := c.Conf
	recs, a := openRecords(conf.DataDir, conf.Name), c.attachment()
	rec, err := recs.read(a)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			fmt.Fprintln(os.Stderr, "loden-cni:", err)
		}
		d, err := delegateNow(conf)
		if err != nil {
			fmt.Fprintln(os.Stderr, "loden-cni: this container has no record, and the delegate's configuration is unknown:", err)
			return nil // DEL of a container that was never attached is a success
		}
		rec = record{Plugin: d.Plugin, Config: d.Config}
	}
	if err := rec.run(c); err != nil {
		return err
	}
	return recs.remove(a)
}

// check runs the delegate's CHECK, looks for the gateway addresses on the bridge, and compares
// the addresses of the attachment with the subnet that the node holds now.
func check(c call) error {
	conf := c.Conf
	a := c.attachment()
	rec, err := openRecords(conf.DataDir, conf.Name).read(a)
	if errors.Is(err, fs.ErrNotExist) {
		return types.NewError(types.ErrUnknownContainer, fmt.Sprintf("container %s has no interface %s on network %s", a.ContainerID, a.IfName, conf.Name), "")
	}
	if err != nil {
		return err
	}
	if err := rec.run(c); err != nil {
		return err
	}
	env, err := loadEnv(conf.SubnetFile)
	if err != nil {
		return err
	}
	if err := checkGateway(delegation{Plugin: rec.Plugin, Config: rec.Config}, env); err != nil {
		return err
	}
	addrs, err := addresses(conf)
	if err != nil {
		return err
	}
	return within(env.Subnets, addrs)
}

// addresses returns the container's addresses from the previous result. The form of its member
// "ips" is the same since CNI 0.3.0.
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

// within returns an error that names the first address outside the node's subnet of its family.
func within(subnets opt.Dual[netip.Prefix], addrs []netip.Addr) error {
	for _, a := range addrs {
		subnet, ok := subnets.Of(opt.FamilyOf(a)).Get()
		if !ok {
			return fmt.Errorf("the container has %s but the node holds no %s subnet: delete the pod", a, opt.FamilyOf(a))
		}
		if !subnet.Contains(a) {
			return fmt.Errorf("the container has %s but the node's subnet is %s: delete the pod, so that its successor gets an address of the subnet", a, subnet)
		}
	}
	return nil
}

// delegateNow returns the delegation that an ADD would get now.
func delegateNow(conf netConf) (delegation, error) {
	env, err := loadEnv(conf.SubnetFile)
	if err != nil {
		return delegation{}, err
	}
	return delegate(conf, env)
}

// loadEnv reads subnet.env. A missing file gives the CNI error "try again later": the daemon
// writes the file last, when the data path stands.
func loadEnv(path string) (config.Env, error) {
	found, err := config.LoadEnv(path)
	if err != nil {
		return config.Env{}, types.NewError(types.ErrIOFailure, err.Error(), "")
	}
	env, ok := found.Get()
	if !ok {
		return config.Env{}, types.NewError(types.ErrTryAgainLater,
			fmt.Sprintf("%s does not exist yet: loden writes it when the node's data path stands, see 'loden status' on this node", path), "")
	}
	if err := complete(env); err != nil {
		return config.Env{}, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("%s: %v", path, err), "")
	}
	return env, nil
}

// run runs the delegate with the recorded configuration and the call's previous result. The
// call's CNI version goes with the result, because the network's version may have changed
// since ADD.
func (r record) run(c call) error {
	more := map[string]any{}
	if len(c.Conf.PrevResult) > 0 {
		more["prevResult"], more["cniVersion"] = c.Conf.PrevResult, c.Conf.CNIVersion
	}
	data, err := r.Config.marshal(more)
	if err != nil {
		return err
	}
	_, err = invocation{Plugin: r.Plugin, Path: c.Path, Config: data}.run()
	return err
}

// attachment returns the attachment that a call is about.
func (c call) attachment() attachment {
	return attachment{ContainerID: c.ContainerID, IfName: c.IfName}
}
