package node

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/network/trace"
)

func hop(node, what string, s State) Hop {
	return Hop{Node: node, Finding: Finding{What: what, State: s, Detail: "detail of " + what, Remedy: "mend " + what}}
}

func TestFirstBrokenStepIsTheVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		hops               []Hop
		verdict, remedy    string
		broken, incomplete bool
	}{
		"healthy":         {[]Hop{hop("a", "route", Good)}, "every step passes", "", false, false},
		"two faults":      {[]Hop{hop("a", "bridge", Good), hop("a", "route", Bad), hop("b", "bridge", Bad)}, "broken at route on a", "mend route", true, false},
		"after a warning": {[]Hop{hop("a", "endpoint", Warn), hop("b", "bridge", Bad)}, "broken at bridge on b", "mend bridge", true, false},
		"warning":         {[]Hop{hop("a", "endpoint", Warn)}, "passes with a warning at endpoint on a", "mend endpoint", false, false},
		"silent peer":     {[]Hop{hop("a", "MTU", Unknown), hop("b", farSide, Unknown)}, "no fault up to b", "mend far side", false, true},
		"idle peer":       {[]Hop{hop("a", "UDP each way", Unknown)}, "every step passes", "", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			x := Explanation{Hops: c.hops}
			x.judge()
			if !strings.Contains(x.Verdict, c.verdict) || x.Remedy != c.remedy || x.Broken != c.broken || x.Incomplete != c.incomplete {
				t.Errorf("%+v", x)
			}
		})
	}
}

// The daemon of a node answers for its half, for itself and for another node that asks.
func TestWhyNamesTheRouteThatWinsOverTheTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		n, stop := b.run()
		defer func() { must(t, stop()) }()
		rep := n.reporter.report(t.Context())
		own, _ := rep.Subnets.V4.Get()
		peer, _ := rep.Peers[0].Subnets.V4.Get()
		k := &trace.Fake{Routes: map[trace.Query]trace.Route{
			{Src: own.Addr(), Dst: peer.Addr()}: {Link: "eth1", Kind: "unicast", Dst: peer, Table: 254},
		}}
		n.linux = k
		x, err := n.why(t.Context(), "n1", "n2")
		must(t, err)
		if !x.Broken || !strings.Contains(x.Verdict, "broken at route to the tunnel on n1") || x.Remedy != "ip route del "+peer.String()+" dev eth1" {
			t.Errorf("%+v", x)
		}
		k.Routes = map[trace.Query]trace.Route{
			{Src: own.Addr(), Dst: peer.Addr().Next().Next()}: {Link: "loden0", Kind: "unicast", Dst: netip.MustParsePrefix("10.244.0.0/16"), Table: 254},
			{Src: own.Addr(), Dst: peer.Addr()}:               {Link: "loden0", Kind: "unicast", Dst: netip.MustParsePrefix("10.244.0.0/16"), Table: 254},
			{Dst: netip.MustParseAddr("192.0.2.2")}:           {Link: "eth0", Kind: "unicast", Dst: netip.MustParsePrefix("192.0.2.0/24"), Table: 254},
		}
		x, err = n.why(t.Context(), "n1", peer.Addr().Next().Next().String())
		must(t, err)
		if x.Broken || !x.Incomplete || !x.To.Pod || x.To.Node != "n2" {
			t.Errorf("%+v", x)
		}
		question, err := json.Marshal(errand{Role: roleReceiver, Src: peer.Addr(), Dst: own.Addr(), Peer: rep.Peers[0].PublicKey})
		must(t, err)
		reply, err := n.answer(t.Context(), wgtypes.Key{}, "why "+string(question))
		must(t, err)
		var findings []Finding
		if err := json.Unmarshal(reply, &findings); err != nil || faultOf(findings, "route back to the tunnel").State == Bad || len(findings) < 5 {
			t.Errorf("%v, %s", err, reply)
		}
		if _, err := n.why(t.Context(), "n1", "zeta"); !errors.Is(err, errEnd) || !strings.Contains(err.Error(), "loden lease list") {
			t.Errorf("%v", err)
		}
	})
}

func TestPodIsFoundByItsNameInTheResultsOfThePlugins(t *testing.T) {
	p, ok := parseCNIResult([]byte(`{"kind":"cniCacheV1","containerId":"c1","networkName":"loden","cniArgs":[["K8S_POD_NAMESPACE","web"],["K8S_POD_NAME","shop-1"]],
		"result":{"ips":[{"address":"10.244.1.2/24"},{"address":"fd44:0:0:1::2/64"}]}}`))
	if !ok || !p.named("web/shop-1") || !p.named("shop-1") || !p.named("c1") || p.named("") || p.named("shop-2") || p.addrs.Len() != 2 {
		t.Errorf("%+v, %v", p, ok)
	}
}

func FuzzCNIResult(f *testing.F) {
	f.Add([]byte(`{"containerId":"c1","networkName":"loden","result":{"ips":[{"address":"10.244.1.2/24"}]}}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if p, ok := parseCNIResult(data); ok && p.addrs.IsZero() {
			t.Error("a pod without an address")
		}
	})
}
