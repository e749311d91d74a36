package main_test

import (
	"testing"
)

func TestPodsAttachAndReachEachOther(t *testing.T) {
	for _, v := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for _, kind := range families {
			t.Run(v+" "+kind.name, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, kind.env, conflist(v, ""))
				a, b := n.pod(t, "a"), n.pod(t, "b")
				n.add(t, a)
				addrs := n.add(t, b)
				if len(addrs) != kind.env.Subnets.Len() {
					t.Errorf("pod has %v, want one address per family of %v", addrs, kind.env.Subnets)
				}
				for _, p := range addrs {
					if err := n.Run("ip", "netns", "exec", n.Name+"-a", "ping", "-c1", "-W5", p.Addr().String()); err != nil {
						t.Error(err)
					}
				}
				if v != "0.3.1" {
					if err := n.cni.CheckNetworkList(t.Context(), n.list, a); err != nil {
						t.Errorf("check: %v", err)
					}
				}
				n.del(t, a)
				n.del(t, a)
				n.del(t, b)
				n.clean(t)
			})
		}
	}
}
