package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/wait"
	"github.com/loden-net/loden/network/probe"
)

// A node that hears no packet of a peer cannot tell a dead peer from a peer whose packets are
// dropped on the way. A third node that reaches both is the witness:
//
//	this node --- "witness PEER" ---> witness --- "heard THIS" ---> peer

// The pauses between two rounds of questions to witnesses.
const (
	hearsayEvery = 30 * time.Second
	hearsayLimit = 4 * time.Second // for a witness to answer
)

// lastHeard is when a node heard another node last: seconds ago, by family; absent: never.
type lastHeard map[string]float64

// hear asks witnesses about silent peers, soon after a path became silent and then from time
// to time, until ctx ends; then it returns nil.
func (n *node) hear(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.prober.silent.C():
			if !wait.For(ctx, time.Second) { // several paths become silent together
				return nil
			}
		case <-time.After(hearsayEvery):
		}
		silent, witnesses := n.prober.Silent()
		for _, peer := range silent {
			n.askWitness(ctx, peer, witnesses)
		}
	}
}

// askWitness asks the witnesses in turn when a peer heard this node last, until a witness
// knows.
func (n *node) askWitness(ctx context.Context, peer wgtypes.Key, witnesses []wgtypes.Key) {
	for _, w := range witnesses[:min(2, len(witnesses))] {
		if w == peer {
			continue
		}
		limit, cancel := context.WithTimeout(ctx, hearsayLimit)
		data, err := n.ask(limit, w, "witness "+peer.String())
		cancel()
		var heard lastHeard
		if err == nil {
			err = json.Unmarshal(data, &heard)
		}
		if err != nil {
			n.log.Debug().Err(err).Stringer("peer", peer).Msg("no witness for a silent peer")
			continue
		}
		for _, f := range opt.Families() {
			ago := opt.None[time.Duration]()
			if seconds, ok := heard[familyName(f)]; ok {
				ago = opt.Some(time.Duration(seconds * float64(time.Second)))
			}
			n.prober.Told(peer, f, ago)
		}
		return
	}
}

// answerWitness answers "witness PEER": when that peer heard the asker last. It asks only a
// peer that it reaches.
func (n *node) answerWitness(ctx context.Context, from wgtypes.Key, peer string) ([]byte, error) {
	key, err := wgtypes.ParseKey(peer)
	if err != nil {
		return nil, fmt.Errorf("read key %.60q: %w", peer, err)
	}
	for _, f := range opt.Families() {
		if p, ok := n.prober.Path(key, f); ok && p.State == probe.Up {
			return n.ask(ctx, key, "heard "+from.String())
		}
	}
	return nil, errors.New("this node does not reach the peer either")
}

// answerHeard answers "heard PEER": when this node heard that peer last.
func (n *node) answerHeard(_ context.Context, _ wgtypes.Key, peer string) ([]byte, error) {
	key, err := wgtypes.ParseKey(peer)
	if err != nil {
		return nil, fmt.Errorf("read key %.60q: %w", peer, err)
	}
	heard := lastHeard{}
	for _, f := range opt.Families() {
		if p, ok := n.prober.Path(key, f); ok && !p.Heard.IsZero() {
			heard[familyName(f)] = time.Since(p.Heard).Seconds()
		}
	}
	return json.Marshal(heard)
}
