package firewall_test

import (
	"context"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// watch runs Watch in the test's network namespace; each notice is put into notices.
func watch(t *testing.T, ctx context.Context, f *firewall.Firewall, notices chan<- struct{}) <-chan error {
	t.Helper()
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		defer here.Close()
		if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		done <- f.Watch(ctx, func() {
			select {
			case notices <- struct{}{}:
			default:
			}
		})
	}()
	return done
}

// drainNotices waits until every notice of earlier changes was read.
func drainNotices(t *testing.T, f *firewall.Firewall, notices <-chan struct{}) {
	t.Helper()
	sandboxtest.Until(t, 20e9, "quiet", func() error {
		select {
		case <-notices:
			return errSilence
		default:
		}
		_, err := f.Changes(t.Context(), whole())
		return err
	})
}

// vandalism returns the damage that other programs may do to the rules, as scripts by name.
func (b bed) vandalism(t testing.TB) map[string]string {
	t.Helper()
	if b.backend == "nftables" {
		return nftVandalism(t)
	}
	chain := regexp.MustCompile(`LODEN-MASQ-[0-9a-f]{10}`).FindString(b.holds(t, opt.V4))
	scripts := map[string]string{
		"rule deleted":           "T -t nat -D CHAIN 3",
		"chain flushed":          "T -t nat -F CHAIN",
		"table flushed":          "T -t nat -F",
		"jump deleted":           `T -t nat -D POSTROUTING -m comment --comment "loden postrouting" -j LODEN-POSTRTG`,
		"jump doubled":           "T -t nat -A POSTROUTING -j LODEN-POSTRTG",
		"inner jump deleted":     "T -t nat -F LODEN-POSTRTG",
		"foreign rule inside":    "T -t nat -I CHAIN 1 -j ACCEPT",
		"foreign match inside":   "T -t nat -R CHAIN 2 -p tcp -s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN",
		"rules swapped":          "T -t nat -D CHAIN 1; T -t nat -A CHAIN -m mark --mark 0x4000/0x4000 -j RETURN",
		"rule doubled":           "T -t nat -A CHAIN -s 10.244.1.0/24 -d 10.244.0.0/16 -j RETURN",
		"guard's jump deleted":   `T -t raw -D PREROUTING -m comment --comment "loden guard-in" -j LODEN-GUARD-IN`,
		"guard emptied":          "T -t mangle -F LODEN-GUARD-OUT",
		"forward rules flushed":  "T -F",
		"stale chain left about": "T -t nat -N LODEN-MASQ-0123456789",
	}
	for name, script := range scripts {
		scripts[name] = strings.NewReplacer("T ", b.tool(opt.V4)+" ", "CHAIN", chain).Replace(script)
	}
	if !b.legacy {
		scripts["everything flushed"] = "nft flush ruleset"
	}
	return scripts
}

func nftVandalism(t testing.TB) map[string]string {
	t.Helper()
	shown := shell(t, "nft list table ip loden")
	chain := regexp.MustCompile(`masq-[0-9a-f]{10}`).FindString(shown)
	handle := regexp.MustCompile(`masquerade.*# handle ([0-9]+)`).FindStringSubmatch(shell(t, "nft -a list table ip loden"))
	scripts := map[string]string{
		"everything flushed":  "nft flush ruleset",
		"table deleted":       "nft delete table ip loden",
		"chain flushed":       "nft flush chain ip loden CHAIN",
		"jump deleted":        "nft flush chain ip loden postrouting",
		"foreign rule inside": "nft insert rule ip loden CHAIN accept",
		"rule doubled":        "nft add rule ip loden CHAIN ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16 return",
		"guard emptied":       "nft flush chain ip loden guard-out",
		"table put to sleep":  "nft 'add table ip loden { flags dormant; }'",
		"hook moved":          "nft 'flush chain ip loden guard-in; delete chain ip loden guard-in; add chain ip loden guard-in { type filter hook prerouting priority 0; }'",
		"policy changed":      "nft 'add chain ip loden forward { policy drop; }'",
	}
	if len(handle) == 2 {
		comment := regexp.MustCompile(`masquerade.*comment ("[^"]*")`).FindStringSubmatch(shown)[1]
		scripts["content changed, comment kept"] = "h=$(nft -a list chain ip loden CHAIN | sed -n '/masquerade/{s/.*handle //p;q}'); nft 'replace rule ip loden CHAIN handle '$h' ip saddr 192.0.2.0/24 masquerade comment " + comment + "'"
	}
	for name, script := range scripts {
		scripts[name] = strings.ReplaceAll(script, "CHAIN", chain)
	}
	return scripts
}
