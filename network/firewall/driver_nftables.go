package firewall

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"sync"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/nftables"
)

// nftablesDriver keeps the rules of both families in nftables. It lists them over netlink; nft runs
// only to change rules.
type nftablesDriver struct {
	kernel *kernel
	tool   func() (*nftables.Tool, error) // found once

	// verified is the fingerprint of each family when its rules were last found in sync. A rule's
	// comment stands for the rule; only a second comparison can tell that its content is still the same.
	verified [2]fingerprint
}

// fingerprint tells whether a family's rules, or the desired rules, changed since they were in sync.
type fingerprint struct{ desired, kernel string }

func newNFTables(k *kernel) *nftablesDriver {
	return &nftablesDriver{kernel: k, tool: sync.OnceValues(nftables.Find)}
}

func (*nftablesDriver) name() string { return string(NFTables) }

func (*nftablesDriver) randomFully(opt.Family) bool { return true } // since Linux 3.18, like nft itself

func (d *nftablesDriver) ready(opt.Family) error {
	_, err := d.tool()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w: install nftables, or use --firewall iptables", err)
	}
	return err
}

func (d *nftablesDriver) changes(_ context.Context, f opt.Family, want desired) ([]diff.Change, error) {
	s, err := d.kernel.state(f)
	if err != nil {
		return nil, err
	}
	now := fingerprint{desired: want.sum(), kernel: s.Fingerprint()}
	tampered := d.verified[f].desired == now.desired && d.verified[f].kernel != now.kernel
	var changes []diff.Change
	for _, part := range parts() {
		o := observed{family: f, part: part, current: want.scope(part), inSync: true}
		for _, p := range places(part) {
			list := want.at(p)
			h := s.Compare(p, list)
			o.inSync = o.inSync && h.InSync && (!tampered || !list.Present())
			if !o.previous.Present() {
				o.previous = h.Scope
			}
		}
		if part == partMasq && s.Flannel && !want.empty() {
			o.inSync, o.flannels = false, true
		}
		if part == partMasq && len(d.replaced(s, want)) > 0 {
			o.inSync = false
		}
		c, ok := o.change(func(ctx context.Context) error { return d.apply(ctx, f, part, want) })
		if ok {
			changes = append(changes, c)
		}
	}
	if len(changes) == 0 {
		d.verified[f] = now
	}
	return changes, nil
}

// apply makes one part as desired. It reads the table again first: the comparison may be old.
func (d *nftablesDriver) apply(ctx context.Context, f opt.Family, part string, want desired) error {
	d.verified[f] = fingerprint{}
	s, err := d.kernel.state(f)
	if err != nil {
		return err
	}
	lists := nftables.Desired{}
	for _, p := range places(part) {
		lists[p] = want.at(p)
	}
	tool, err := d.tool()
	if err != nil {
		return err
	}
	s.Flannel = s.Flannel && part == partMasq && !want.empty()
	var replaced []string
	if part == partMasq {
		replaced = d.replaced(s, want)
	}
	return tool.Apply(ctx, s, lists, replaced)
}

// replaced returns the tables of other daemons with rules for the same network. They go with the
// masquerade, when the guard stands.
func (d *nftablesDriver) replaced(s nftables.State, want desired) []string {
	for _, part := range parts() {
		if scope, ok := want.scope(part).Get(); ok {
			return s.Replaced(scope.Network)
		}
	}
	return nil
}

func (d *nftablesDriver) refused(_ context.Context, f opt.Family) (in, out uint64, err error) {
	err = withConn(func(c *netfilter.Conn) error {
		in, out, err = nftables.Refused(c, d.kernel.owner, f)
		return err
	})
	return in, out, err
}

func (d *nftablesDriver) watch(ctx context.Context, notify func()) error {
	return d.kernel.watch(ctx, notify)
}
