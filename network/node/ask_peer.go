package node

import (
	"context"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// ask asks a peer's daemon a question through the tunnel.
func (n *node) ask(ctx context.Context, peer wgtypes.Key, question string) ([]byte, error) {
	return n.prober.Fetch(ctx, peer, question)
}
