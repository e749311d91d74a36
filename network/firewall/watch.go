package firewall

import (
	"context"

	"github.com/loden-net/loden/network/firewall/iptables"
	"github.com/loden-net/loden/network/firewall/netfilter"
	"github.com/loden-net/loden/network/firewall/nftables"
)

// Watch calls notify, never concurrently, when the kernel says that rules which may
// concern us have changed: once per transaction, however many rules it touched. Our own
// changes are among them. It blocks until ctx ends and then returns nil; any other end is
// an error. The kernel announces nftables, and with them iptables-nft; of iptables-legacy it
// says nothing, so callers compare from time to time as well.
func (f *Firewall) Watch(ctx context.Context, notify func()) error {
	return netfilter.Watch(ctx, func(table, chain string) bool {
		return nftables.Concerns(table) || iptables.Concerns(table, chain)
	}, notify)
}
