package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
)

// DefaultBridge is the name of the pods' bridge, unless the CNI configuration gives another.
const DefaultBridge = "cni0"

// Bridge finds the bridge of this node's pods: the bridge that holds a gateway address, else
// cni0. It is false while no pod was ever attached.
func (h Host) Bridge(links []Link) (Link, bool) {
	for _, l := range links {
		for _, subnet := range h.Subnet.All() {
			if l.Kind == "bridge" && slices.Contains(l.Addresses, config.Gateway(subnet)) {
				return l, true
			}
		}
	}
	i := slices.IndexFunc(links, func(l Link) bool { return l.Name == DefaultBridge })
	if i < 0 {
		return Link{}, false
	}
	return links[i], true
}

// CheckBridge judges the bridge of the pods: it must be up and hold the gateway address of each
// family. Addresses of an old subnet keep the CNI plugin from attaching pods.
func (h Host) CheckBridge() []Finding {
	const what = "pod bridge"
	links, err := h.Kernel.Links()
	if err != nil {
		return []Finding{{What: what, State: Unknown, Detail: err.Error()}}
	}
	bridge, ok := h.Bridge(links)
	if !ok {
		return []Finding{{What: what, State: Good, Detail: "no pod was attached yet, so there is no bridge"}}
	}
	ports := 0
	for _, l := range links {
		if l.Master == bridge.Name {
			ports++
		}
	}
	if !bridge.Up {
		return []Finding{{What: what, State: Bad, Detail: fmt.Sprintf("%s is down, so no pod of this node has a network", bridge.Name), Remedy: "ip link set " + bridge.Name + " up"}}
	}
	var out []Finding
	var held []string
	for f, subnet := range h.Subnet.All() {
		gateway := config.Gateway(subnet)
		if slices.Contains(bridge.Addresses, gateway) {
			held = append(held, gateway.String())
			continue
		}
		out = append(out, h.withoutGateway(f, bridge, gateway, ports))
	}
	if len(out) == 0 {
		return []Finding{{What: what, State: Good, Detail: fmt.Sprintf("%s is up with %s and %d ports", bridge.Name, strings.Join(held, " and "), ports)}}
	}
	return out
}

// withoutGateway says why a bridge without the gateway address of a family does harm.
func (h Host) withoutGateway(f opt.Family, bridge Link, gateway netip.Prefix, ports int) Finding {
	finding := Finding{What: "pod bridge", State: Bad}
	foreign := slices.IndexFunc(bridge.Addresses, func(a netip.Prefix) bool { return opt.FamilyOf(a.Addr()) == f && !a.Addr().IsLinkLocalUnicast() })
	if foreign >= 0 {
		old := bridge.Addresses[foreign]
		finding.Detail = fmt.Sprintf("%s has the address %s of another subnet than this node's %s, so no pod can be attached, and the %d pods there are cut off", bridge.Name, old, gateway.Masked(), ports)
		finding.Remedy = fmt.Sprintf("delete this node's pods, then `ip link del %s`: the next pod makes it anew", bridge.Name)
		return finding
	}
	if off, err := h.Kernel.Sysctl("net/ipv6/conf/" + bridge.Name + "/disable_ipv6"); f == opt.V6 && err == nil && off == "1" {
		finding.Detail = fmt.Sprintf("IPv6 is switched off on %s, so the pods of this node have no IPv6", bridge.Name)
		finding.Remedy = fmt.Sprintf("sysctl -w net.ipv6.conf.%s.disable_ipv6=0", bridge.Name)
		return finding
	}
	finding.Detail = fmt.Sprintf("%s lacks its %s gateway address %s, so its %d pods have no %s", bridge.Name, f, gateway, ports, f)
	finding.Remedy = fmt.Sprintf("%s addr add %s dev %s", ip(f), gateway, bridge.Name)
	if ports == 0 {
		finding.State, finding.Detail = Warn, fmt.Sprintf("%s lacks its %s gateway address %s, and no pod is attached: the next pod brings it", bridge.Name, f, gateway)
	}
	return finding
}

// CheckPod judges the link of a pod of this node by its address.
func (h Host) CheckPod(pod netip.Addr, bridge Link) Finding {
	const what = "pod's link"
	n, err := h.Kernel.Neighbour(bridge.Name, pod)
	switch {
	case err != nil:
		return Finding{What: what, State: Unknown, Detail: err.Error()}
	case n.Failed:
		return Finding{What: what, State: Bad, Detail: fmt.Sprintf("no pod answers for %s on %s", pod, bridge.Name), Remedy: "look whether the pod runs and has this address: crictl pods, kubectl get pods -o wide"}
	case n.Present && n.Port != "":
		return Finding{What: what, State: Good, Detail: fmt.Sprintf("%s is behind %s, a port of %s", pod, n.Port, bridge.Name)}
	case n.Present:
		return Finding{What: what, State: Good, Detail: fmt.Sprintf("%s answers on %s", pod, bridge.Name)}
	}
	return Finding{What: what, State: Unknown, Detail: fmt.Sprintf("%s was not heard on %s lately", pod, bridge.Name)}
}

// CheckForwarding judges the kernel settings without which no packet of a pod is forwarded.
func (h Host) CheckForwarding(bridge string) Finding {
	const what = "forwarding"
	type setting struct{ path, want, about string }
	var wanted []setting
	if h.Subnet.V4.Present() {
		wanted = append(wanted, setting{"net/ipv4/ip_forward", "1", "forward IPv4 packets of pods"}, setting{"net/ipv4/conf/" + h.Tunnel + "/forwarding", "1", "forward IPv4 packets out of the tunnel"})
		if bridge != "" {
			wanted = append(wanted, setting{"net/ipv4/conf/" + bridge + "/forwarding", "1", "forward IPv4 packets of pods"})
		}
	}
	if h.Subnet.V6.Present() {
		wanted = append(wanted, setting{"net/ipv6/conf/all/forwarding", "1", "forward IPv6 packets of pods"}, setting{"net/ipv6/conf/" + h.Tunnel + "/disable_ipv6", "0", "have IPv6 on the tunnel"})
		if bridge != "" {
			wanted = append(wanted, setting{"net/ipv6/conf/" + bridge + "/disable_ipv6", "0", "have IPv6 on the pods' bridge"})
		}
	}
	for _, w := range wanted {
		have, err := h.Kernel.Sysctl(w.path)
		if err != nil || have == w.want {
			continue // a setting of an interface that does not exist is no fault of forwarding
		}
		name := strings.ReplaceAll(w.path, "/", ".")
		return Finding{What: what, State: Bad, Detail: fmt.Sprintf("this host does not %s: %s is %s", w.about, name, have), Remedy: fmt.Sprintf("sysctl -w %s=%s", name, w.want)}
	}
	return Finding{What: what, State: Good, Detail: "on for the families of the overlay"}
}
