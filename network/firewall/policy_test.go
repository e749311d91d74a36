package firewall_test

import (
	"testing"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network/firewall"
)

// A Config is compared with ==; this does not compile otherwise.
var _ = firewall.Config{} == firewall.Config{}

func TestPolicyDecidesPerFamily(t *testing.T) {
	global := scopes().With(opt.V6, scope("2001:db8:44::/48", "2001:db8:44:1::/64"))
	for _, c := range []struct {
		name   string
		policy firewall.Policy
		scopes opt.Dual[firewall.Scope]
		v4, v6 bool
	}{
		{"nothing wished", firewall.Policy{}, scopes(), false, false},
		{"unique-local IPv6 is masqueraded", firewall.Policy{Masq: true}, scopes(), true, true},
		{"global IPv6 is not", firewall.Policy{Masq: true, IPv6Masq: firewall.MasqAuto}, global, true, false},
		{"unless asked for", firewall.Policy{Masq: true, IPv6Masq: firewall.MasqAlways}, global, true, true},
		{"never", firewall.Policy{Masq: true, IPv6Masq: firewall.MasqNever}, scopes(), true, false},
		{"--ip-masq decides", firewall.Policy{IPv6Masq: firewall.MasqAlways}, scopes(), false, false},
	} {
		got := c.policy.Config("loden0", c.scopes)
		if got.Masq.V4.Present() != c.v4 || got.Masq.V6.Present() != c.v6 {
			t.Errorf("%s: %+v", c.name, got.Masq)
		}
	}
	if got := (firewall.Policy{Guard: firewall.Off}).Config("loden0", scopes()); got != (firewall.Config{}) {
		t.Errorf("a policy that wants nothing: %+v", got)
	}
	if got := whole(); got != whole() {
		t.Error("equal configurations differ")
	}
}

func TestUnderlayInsideTheOverlayIsAnExceptionAndOutsideIsNot(t *testing.T) {
	underlay := set.NewPrefixes(prefix("10.244.80.0/24"), prefix("192.0.2.0/24"), prefix("fd44:0:0:80::/64"), prefix("10.0.0.0/8"))
	p := policy()
	p.Except = underlay
	want := set.NewPrefixes(prefix("10.244.80.0/24"), prefix("fd44:0:0:80::/64"))
	if got := p.Config("loden0", scopes()).Guard.Except; got != want {
		t.Errorf("of %v: %v, want %v", underlay, got, want)
	}
}
