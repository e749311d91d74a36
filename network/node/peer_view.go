package node

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// View is a peer's answer to the question "view": what the peer knows about the asking node.
type View struct {
	At       time.Time    `json:"at"`       // the peer's clock
	Endpoint string       `json:"endpoint"` // at which the peer hears the asking node
	State    string       `json:"state"`
	Paths    []PathReport `json:"paths,omitempty"`
}

// PeerView is the view of a peer, with the name of the peer and the difference of the clocks.
type PeerView struct {
	Node  string        `json:"node"`
	Error string        `json:"error,omitempty"`  // why there is no view
	Ahead time.Duration `json:"aheadNanoseconds"` // by how much the peer's clock is ahead of this node's
	View
}

// ownView answers the question "view".
func (n *node) ownView(ctx context.Context, from wgtypes.Key, _ string) ([]byte, error) {
	v := View{At: time.Now()}
	for _, p := range n.reporter.report(ctx).Peers {
		if p.PublicKey == from.String() {
			v.Endpoint, v.State, v.Paths = p.Endpoint, p.State, p.Paths
		}
	}
	return json.Marshal(v)
}

// maxViews is how many peers are asked for their view, and viewLimit the time for all of them.
const (
	maxViews  = 64
	viewLimit = 2 * time.Second
)

// views asks the peers for their views of this node, many at a time.
func (n *node) views(ctx context.Context) []PeerView {
	ctx, cancel := context.WithTimeout(ctx, viewLimit)
	defer cancel()
	peers := n.reporter.report(ctx).Peers
	peers = peers[:min(len(peers), maxViews)]
	out := make([]PeerView, len(peers))
	var g errgroup.Group
	g.SetLimit(16)
	for i, p := range peers {
		g.Go(func() error {
			out[i] = n.viewOf(ctx, p)
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	return out
}

// viewOf asks a peer.
func (n *node) viewOf(ctx context.Context, p PeerReport) PeerView {
	v := PeerView{Node: peerTitle(p)}
	key, err := wgtypes.ParseKey(p.PublicKey)
	if err != nil {
		v.Error = err.Error()
		return v
	}
	asked := time.Now()
	reply, err := n.ask(ctx, key, "view")
	if err == nil {
		err = json.Unmarshal(reply, &v.View)
	}
	if err != nil {
		v.Error = oneLine(err.Error())
		return v
	}
	v.Ahead = v.At.Sub(asked.Add(time.Since(asked) / 2))
	return v
}

// maxAhead is the difference of two clocks from which on a finding warns: WireGuard refuses a
// handshake whose timestamp is older than an earlier handshake's, so a clock that is set back
// by more than a rekey interval keeps its node away from its peers.
const maxAhead = 2 * time.Minute

// judgeView returns the findings of a peer's view. own is the endpoints of this node's lease.
func judgeView(v PeerView, own map[string]bool) []Finding {
	var out []Finding
	if v.Ahead.Abs() > maxAhead {
		word, by := "ahead of", v.Ahead
		if v.Ahead < 0 {
			word, by = "behind", -v.Ahead
		}
		out = append(out, Finding{What: "clock", State: Warn, Detail: fmt.Sprintf("the clock of %s is %v %s this node's; a clock that is set back keeps its node's handshakes refused until it has caught up", v.Node, by.Round(time.Second), word),
			Remedy: "run a time service (chrony, systemd-timesyncd) on both nodes: timedatectl"})
	}
	if v.Endpoint != "" && len(own) > 0 && !own[v.Endpoint] {
		out = append(out, Finding{What: "announced endpoint", State: Warn, Detail: fmt.Sprintf("%s hears this node at %s, and this node's lease announces another endpoint: nodes that this node does not call first cannot reach it", v.Node, v.Endpoint),
			Remedy: "give the address that other nodes reach with --public-ip, or forward the port on the NAT"})
	}
	return out
}
