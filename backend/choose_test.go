package backend

import (
	"testing"

	"github.com/loden-net/loden/config/opt"
)

func TestChoiceKeepsWhatIsThereUnlessAskedForAnother(t *testing.T) {
	kernel, tun, bridge := opt.Some(link{kind: kernelLink}), opt.Some(link{kind: tunLink}), opt.Some(link{kind: "bridge"})
	for name, c := range map[string]struct {
		facts   facts
		want    Kind
		reason  string
		missing bool
	}{
		"nothing there, no kernel": {facts{asked: "auto"}, Loden, "the kernel has no WireGuard", false},
		"nothing there, kernel":    {facts{asked: "auto", kernel: true}, Kernel, "the kernel has WireGuard", false},
		"not asked at all":         {facts{kernel: true}, Kernel, "the kernel has WireGuard", false},
		"kernel link":              {facts{kernel: true, link: kernel}, Kernel, "x is a kernel WireGuard interface already", false},
		"tun, kernel came later":   {facts{kernel: true, link: tun}, Loden, "x is a TUN device already", false},
		"tun with another engine":  {facts{link: tun, engine: opt.Some(Loden)}, Loden, "x is a TUN device already", false},
		"somebody else's":          {facts{kernel: true, link: bridge}, Kernel, "the kernel has WireGuard", false},
		"kernel asked for":         {facts{asked: "kernel", kernel: true, link: tun}, Kernel, "asked for", false},
		"kernel asked in vain":     {facts{asked: "kernel"}, Kernel, "asked for", true},
		"userspace asked for":      {facts{asked: "wireguard-go", kernel: true, link: kernel}, WireGuardGo, "asked for", false},
		"ours asked for":           {facts{asked: "loden", kernel: true}, Loden, "asked for", false},
	} {
		got, err := choose("x", c.facts)
		if err != nil || got.kind != c.want || got.reason != c.reason || (got.missing != nil) != c.missing {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if _, err := choose("x", facts{asked: "steam"}); err == nil || err.Error() != `engine "steam": choose one of auto, kernel, wireguard-go, loden` {
		t.Errorf("got %v", err)
	}
}
