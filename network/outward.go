package network

import "slices"

// leadsOff reports whether a link leads off the node, so that the guard lets no packet with
// a pod's address pass there. These links do:
//
//   - a physical link, a VLAN, a bond, and a bridge with such a port;
//   - a tunnel of another program;
//   - any other link that holds an address of a foreign network, such as a bridge of virtual
//     machines. For a link of a kind that pods have, the network must be more than a single
//     address, since some CNI plugins put an address of the node on each pod's link.
//
// A link with an address of this node's own subnet leads to pods, and a link that is down
// leads nowhere. Dummy links carry no packet.
func (v Inventory) leadsOff(l Link, o overlay) bool {
	own := slices.ContainsFunc(l.Addresses, func(a LinkAddress) bool { return contains(o.subnets, a.Addr) })
	if own || !l.Up || l.Kind == "dummy" || l.Kind == "ifb" {
		return false
	}
	if l.wired() || l.tunnels() {
		return true
	}
	if l.Kind == "bridge" && slices.ContainsFunc(v.Links, func(p Link) bool { return p.Bridge == l.Name && p.wired() }) {
		return true
	}
	pods := kernelLink{kind: l.Kind}.forPods()
	return slices.ContainsFunc(l.Addresses, func(a LinkAddress) bool {
		return a.Addr.IsGlobalUnicast() && !contains(o.networks, a.Addr) && !(pods && a.hostPrefix())
	})
}

// wired reports whether the link is a physical link or stands for physical links.
func (l Link) wired() bool {
	switch l.Kind {
	case "", "vlan", "bond", "team", "hsr", "macsec":
		return true
	}
	return false
}

// tunnels reports whether the link is a tunnel to other hosts.
func (l Link) tunnels() bool {
	switch l.Kind {
	case "wireguard", "vxlan", "geneve", "gre", "gretap", "erspan", "ip6gre", "ip6gretap", "ip6erspan",
		"ipip", "sit", "ip6tnl", "vti", "vti6", "xfrm", "ppp", "l2tp", "bareudp", "tun":
		return true
	}
	return false
}
