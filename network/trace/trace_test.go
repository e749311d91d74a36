package trace_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/trace"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// host is a node with a pod, and no fault.
func host() (trace.Host, *trace.Fake) {
	k := &trace.Fake{
		Routes: map[trace.Query]trace.Route{
			{Src: addr("10.244.1.2"), Dst: addr("10.244.2.2"), In: "cni0"}: {Link: "loden0", Kind: "unicast", Dst: prefix("10.244.0.0/16"), Table: 254},
		},
		RuleList: []trace.Rule{{Priority: 0, Table: 255, Text: "from all"}, {Priority: 32766, Table: 254, Text: "from all"}},
		LinkList: []trace.Link{
			{Name: "cni0", Kind: "bridge", Up: true, Addresses: []netip.Prefix{prefix("10.244.1.1/24"), prefix("fd44:0:0:1::1/64"), prefix("fe80::1/64")}},
			{Name: "veth1", Kind: "veth", Up: true, Master: "cni0"},
			{Name: "loden0", Kind: "tun", Up: true},
		},
		Neighbours: map[netip.Addr]trace.Neighbour{addr("10.244.1.2"): {Present: true, Port: "veth1"}},
		Settings: map[string]string{"net/ipv4/ip_forward": "1", "net/ipv4/conf/cni0/forwarding": "1", "net/ipv4/conf/loden0/forwarding": "1",
			"net/ipv6/conf/all/forwarding": "1", "net/ipv6/conf/cni0/disable_ipv6": "0", "net/ipv6/conf/loden0/disable_ipv6": "0"},
	}
	return trace.Host{
		Kernel: k, Tunnel: "loden0",
		Network: opt.Dual[netip.Prefix]{V4: opt.Some(prefix("10.244.0.0/16")), V6: opt.Some(prefix("fd44::/48"))},
		Subnet:  opt.Dual[netip.Prefix]{V4: opt.Some(prefix("10.244.1.0/24")), V6: opt.Some(prefix("fd44:0:0:1::/64"))},
	}, k
}

func TestHealthyHostHasNoFault(t *testing.T) {
	h, k := host()
	found := append(h.CheckBridge(), h.CheckForwarding("cni0"), h.CheckFlannel(), h.CheckPod(addr("10.244.1.2"), k.LinkList[0]),
		h.Towards(addr("10.244.1.2"), addr("10.244.2.2"), "cni0"))
	for _, f := range found {
		if f.State != trace.Good || f.Remedy != "" {
			t.Errorf("%+v", f)
		}
	}
}

func TestForeignRouteOrRuleIsNamedWithTheCommandThatMendsIt(t *testing.T) {
	q := trace.Query{Src: addr("10.244.1.2"), Dst: addr("10.244.2.2"), In: "cni0"}
	for name, c := range map[string]struct {
		route          trace.Route
		rules          []trace.Rule
		detail, remedy string
	}{
		"more specific route":   {trace.Route{Link: "eth0", Kind: "unicast", Dst: prefix("10.244.2.0/24"), Table: 254}, nil, "route 10.244.2.0/24 dev eth0 wins", "ip route del 10.244.2.0/24 dev eth0"},
		"rule to another table": {trace.Route{Link: "tun9", Kind: "unicast", Dst: prefix("0.0.0.0/0"), Table: 99}, []trace.Rule{{Priority: 100, Table: 99, Text: "from all"}}, `rule "from all" (priority 100) sends them to table 99`, "ip rule add to 10.244.0.0/16 lookup main priority 99"},
		"table without a rule":  {trace.Route{Link: "tun9", Kind: "unicast", Dst: prefix("10.0.0.0/8"), Table: 99}, nil, "of table 99 wins", "ip route del 10.0.0.0/8 table 99"},
		"address of the host":   {trace.Route{Link: "docker0", Kind: "local", Dst: prefix("10.244.2.2/32"), Table: 255}, nil, "address of this host itself, on docker0", "ip addr del 10.244.2.2/32 dev docker0"},
		"unreachable below":     {trace.Route{Kind: "unreachable", Dst: prefix("10.244.0.0/16"), Table: 254}, nil, "tunnel's route to 10.244.0.0/16 is missing", "loden run"},
		"blackhole":             {trace.Route{Kind: "blackhole", Dst: prefix("10.244.2.0/24"), Table: 254}, nil, "blackhole route 10.244.2.0/24 wins", "ip route del 10.244.2.0/24"},
		"reverse path filter":   {trace.Route{Refused: unix.EXDEV}, nil, "reverse path filter drops packets from 10.244.1.2", "rp_filter=2"},
		"prohibited":            {trace.Route{Refused: unix.EACCES}, nil, "refuses", "ip rule list"},
		"no route":              {trace.Route{Refused: unix.ENETUNREACH}, nil, "refuses", "ip route get 10.244.2.2"},
	} {
		t.Run(name, func(t *testing.T) {
			h, k := host()
			k.Routes[q], k.RuleList = c.route, append(k.RuleList, c.rules...)
			f := h.Towards(q.Src, q.Dst, q.In)
			if f.State != trace.Bad || !strings.Contains(f.Detail, c.detail) || !strings.Contains(f.Remedy, c.remedy) {
				t.Errorf("got %+v, want FAIL %q, %q", f, c.detail, c.remedy)
			}
		})
	}
}

func TestQuestionWithoutAnAnswerIsUnknown(t *testing.T) {
	h, k := host()
	k.LookupFault = errors.New("netlink is busy")
	if f := h.Towards(addr("10.244.1.2"), addr("10.244.2.2"), "cni0"); f.State != trace.Unknown {
		t.Errorf("%+v", f)
	}
	if f := h.CheckPod(addr("10.244.1.9"), k.LinkList[0]); f.State != trace.Unknown {
		t.Errorf("a pod that was not heard lately: %+v", f)
	}
}

func TestBridgeThatDoesNotServeItsPodsIsAFault(t *testing.T) {
	for name, c := range map[string]struct {
		spoil          func(*trace.Fake)
		state          trace.State
		detail, remedy string
	}{
		"IPv6 gateway lost": {func(k *trace.Fake) { k.LinkList[0].Addresses = k.LinkList[0].Addresses[:1] }, trace.Bad, "lacks its IPv6 gateway address", "ip -6 addr add fd44:0:0:1::1/64 dev cni0"},
		"IPv6 switched off": {func(k *trace.Fake) {
			k.LinkList[0].Addresses = k.LinkList[0].Addresses[:1]
			k.Settings["net/ipv6/conf/cni0/disable_ipv6"] = "1"
		}, trace.Bad, "IPv6 is switched off on cni0", "sysctl -w net.ipv6.conf.cni0.disable_ipv6=0"},
		"old subnet": {func(k *trace.Fake) { k.LinkList[0].Addresses[0] = prefix("10.5.22.1/24") }, trace.Bad, "10.5.22.1/24 of another subnet than this node's 10.244.1.0/24", "ip link del cni0"},
		"down":       {func(k *trace.Fake) { k.LinkList[0].Up = false }, trace.Bad, "cni0 is down", "ip link set cni0 up"},
		"no pod":     {func(k *trace.Fake) { k.LinkList = k.LinkList[2:] }, trace.Good, "no pod was attached yet", ""},
		"no port":    {func(k *trace.Fake) { k.LinkList[1].Master = ""; k.LinkList[0].Addresses = nil }, trace.Warn, "the next pod brings it", "ip addr add"},
	} {
		t.Run(name, func(t *testing.T) {
			h, k := host()
			c.spoil(k)
			f := h.CheckBridge()[0]
			if f.State != c.state || !strings.Contains(f.Detail, c.detail) || !strings.Contains(f.Remedy, c.remedy) {
				t.Errorf("got %+v, want %s %q, %q", f, c.state, c.detail, c.remedy)
			}
		})
	}
}

func TestSettingThatStopsForwardingIsNamed(t *testing.T) {
	for path, bad := range map[string]string{"net/ipv4/ip_forward": "0", "net/ipv4/conf/cni0/forwarding": "0", "net/ipv6/conf/all/forwarding": "0", "net/ipv6/conf/loden0/disable_ipv6": "1"} {
		h, k := host()
		want := k.Settings[path]
		k.Settings[path] = bad
		name := strings.ReplaceAll(path, "/", ".")
		if f := h.CheckForwarding("cni0"); f.State != trace.Bad || f.Remedy != "sysctl -w "+name+"="+want {
			t.Errorf("%s: %+v", path, f)
		}
	}
}

func TestFlannelInterfacesAreLeftovers(t *testing.T) {
	h, k := host()
	k.LinkList = append(k.LinkList, trace.Link{Name: "flannel.1", Kind: "vxlan"})
	if f := h.CheckFlannel(); f.State != trace.Warn || !strings.HasSuffix(f.Remedy, "ip link del flannel.1") {
		t.Errorf("%+v", f)
	}
}

func TestPodThatGivesNoAnswerIsAFault(t *testing.T) {
	h, k := host()
	k.Neighbours[addr("10.244.1.7")] = trace.Neighbour{Present: true, Failed: true}
	if f := h.CheckPod(addr("10.244.1.7"), k.LinkList[0]); f.State != trace.Bad || f.Remedy == "" {
		t.Errorf("%+v", f)
	}
}
