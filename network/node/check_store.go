package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/subnet"
)

// storeNames adds a finding when no endpoint of the store has an address: its name is wrong, or
// the name service does not answer. It reports whether an endpoint has an address.
func (c *check) storeNames(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	var failed error
	for _, endpoint := range c.host.settings.Etcd.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil {
			return true // etcd's client says what is wrong with it
		}
		if _, err := netip.ParseAddr(u.Hostname()); err == nil {
			return true
		}
		if found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname()); err == nil && len(found) > 0 {
			return true
		}
		failed = fmt.Errorf("the name %s has no address: correct --etcd-endpoints, or mend the name service (/etc/resolv.conf)", u.Hostname())
	}
	if failed == nil {
		return true
	}
	c.add("etcd", "", failed)
	return false
}

// nodeName adds a finding when another machine holds a lease with this node's name.
func (c *check) nodeName(leases subnet.Leases) {
	own := c.host.key.Public()
	for l := range leases.All() {
		if l.Node == c.host.settings.Name && l.Key != own && l.Key != (wgtypes.Key{}) && !l.Leaving {
			c.add("node name", "", fmt.Errorf("the lease of %q belongs to another machine, with key %s at %s: give this node another name with --node-name; if the other machine is gone: loden lease release %s", l.Node, l.Key, endpointText(l.Endpoints), l.Node))
		}
	}
}
