package node

import (
	"strings"
	"testing"
	"testing/synctest"
)

func TestOffloadsThatAreNotInUseAreShown(t *testing.T) {
	for state, want := range map[string]string{
		"on":      "ok all in use",
		"off":     "ok tun-tx is off by --engine-no-offload",
		"refused": "warn tun-tx is refused by the kernel",
	} {
		t.Run(state, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t, bedDocument, 2)
				b.device = newUserspace()
				b.device.Offload("tun-tx", state)
				n, stop := b.run()
				if rep := n.reporter.report(t.Context()); rep.Engine.Offloads["tun-tx"] != state {
					t.Errorf("status shows %v, want tun-tx %s", rep.Engine.Offloads, state)
				}
				if got := found(b.environment().check(t.Context(), b.settings, CheckOptions{}))["offloads"]; !strings.HasPrefix(got, want) {
					t.Errorf("check finds %q, want %q", got, want)
				}
				must(t, stop())
			})
		})
	}
}
