package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// delegation is what is handed to the delegate, and what must be known of it later.
type delegation struct {
	Plugin string // the delegate's type
	Config []byte // its configuration, without what a single call adds (prevResult)
}

// delegate makes the delegate's configuration out of the plugin's own and subnet.env. It
// is pure: the same two always give the same bytes.
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
	data, err := json.Marshal(out)
	return delegation{Plugin: plugin, Config: data}, err
}

// fill puts in every member of set, and those of defaults that o lacks.
func (o object) fill(set, defaults map[string]any) error {
	for key, value := range defaults {
		if _, ok := o[key]; !ok {
			set[key] = value
		}
	}
	for key, value := range set {
		raw, err := json.Marshal(value)
		if err != nil {
			return fmt.Errorf("write %q of delegate: %w", key, err)
		}
		o[key] = raw
	}
	return nil
}

// delegateIPAM is the delegate's "ipam": ranges of the families present, always, and a
// route to each overlay after the routes that were given.
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

// complete says what is missing from a subnet.env that a pod could not do without.
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
