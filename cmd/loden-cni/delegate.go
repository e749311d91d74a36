package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// delegation names the delegate and holds its configuration.
type delegation struct {
	Plugin string // the delegate's type
	Config object // the members that a single call adds, such as prevResult, are not in it
}

// delegate makes the delegate's configuration out of the plugin's own and subnet.env. It
// is pure: the same input always gives the same members.
func delegate(conf netConf, env config.Env) (delegation, error) {
	out := maps.Clone(conf.Delegate)
	if out == nil {
		out = object{}
	}
	plugin, err := out.word("type", "bridge")
	if err != nil {
		return delegation{}, err
	}
	ipam, err := delegateIPAM(conf.IPAM, env)
	if err != nil {
		return delegation{}, err
	}
	set := map[string]any{"name": conf.Name, "type": plugin, "cniVersion": conf.CNIVersion, "ipam": ipam}
	if len(conf.RuntimeConfig) > 0 {
		set["runtimeConfig"] = conf.RuntimeConfig
	}
	defaults := map[string]any{"mtu": env.MTU, "ipMasq": !env.Masq} // the daemon masquerades, so the bridge must not
	if plugin == "bridge" {
		defaults["isGateway"] = true
	}
	if err := out.fill(set, defaults); err != nil {
		return delegation{}, err
	}
	return delegation{Plugin: plugin, Config: out}, nil
}

// marshal returns the JSON text of o with further members for a single call.
func (o object) marshal(more map[string]any) ([]byte, error) {
	all := maps.Clone(o)
	if err := all.fill(more, nil); err != nil {
		return nil, err
	}
	return json.Marshal(all)
}

// fill sets every member of set, and the members of defaults that o lacks.
func (o object) fill(set, defaults map[string]any) error {
	all := maps.Clone(set)
	for key, value := range defaults {
		if _, ok := o[key]; !ok {
			all[key] = value
		}
	}
	for key, value := range all {
		raw, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("write %q of delegate: %w", key, err)
		}
		o[key] = raw
	}
	return nil
}

// delegateIPAM returns the delegate's "ipam": the ranges of the node's subnets, which replace
// configured ranges, and a route to each overlay behind the configured routes.
func delegateIPAM(given object, env config.Env) (object, error) {
	type ipRange struct {
		Subnet netip.Prefix `json:"subnet"`
	}
	type route struct {
		Dst netip.Prefix `json:"dst"`
	}
	out := maps.Clone(given)
	if out == nil {
		out = object{}
	}
	var ranges [][]ipRange
	for _, subnet := range env.Subnets.All() {
		ranges = append(ranges, []ipRange{{Subnet: subnet}})
	}
	var routes []any
	if raw, ok := given["routes"]; ok {
		if err := json.Unmarshal(raw, &routes); err != nil {
			return nil, fmt.Errorf("read ipam.routes: %w", err)
		}
	}
	for _, network := range env.Networks.All() {
		routes = append(routes, route{Dst: network})
	}
	set := map[string]any{"ranges": ranges, "routes": routes}
	return out, out.fill(set, map[string]any{"type": "host-local"})
}

// complete returns an error that names the first value that a pod needs and subnet.env lacks.
func complete(env config.Env) error {
	if env.Subnets.Len() == 0 {
		return fmt.Errorf("FLANNEL_SUBNET and FLANNEL_IPV6_SUBNET are both missing")
	}
	if env.MTU == 0 {
		return fmt.Errorf("FLANNEL_MTU is missing")
	}
	for _, f := range opt.Families() {
		network, hasNetwork := env.Networks.Of(f).Get()
		subnet, hasSubnet := env.Subnets.Of(f).Get()
		if hasNetwork != hasSubnet {
			return fmt.Errorf("%s has a network or a subnet but not both", f)
		}
		if hasSubnet && !network.Contains(subnet.Addr()) {
			return fmt.Errorf("subnet %s is outside of the network %s", subnet, network)
		}
	}
	return nil
}
