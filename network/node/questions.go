package node

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// question answers a question of another node. from is the public key of that node, and
// argument is the text after the name of the question. The answer crosses the tunnel in
// small pieces, so it should stay below 256 KiB.
type question func(ctx context.Context, from wgtypes.Key, argument string) ([]byte, error)

// questions returns the questions that this node answers to its peers, by name. A question
// changes no part of the node, and its answer holds no secret.
func (n *node) questions() map[string]question {
	return map[string]question{
		"report":  n.ownReport,
		"row":     n.ownRow,
		"heard":   n.answerHeard,
		"witness": n.answerWitness,
		"view":    n.ownView,
		"why":     n.answerWhy,
	}
}

// ownReport answers with the report of this node as JSON.
func (n *node) ownReport(ctx context.Context, _ wgtypes.Key, _ string) ([]byte, error) {
	return json.Marshal(n.reporter.report(ctx))
}

// answer finds the question that a peer asks by the first word of its text, and answers it.
func (n *node) answer(ctx context.Context, from wgtypes.Key, text string) ([]byte, error) {
	name, argument, _ := strings.Cut(text, " ")
	all := n.questions()
	reply, known := all[name]
	if !known {
		return nil, fmt.Errorf("this node does not know the question %.40q, only %s", name, strings.Join(slices.Sorted(maps.Keys(all)), ", "))
	}
	return reply(ctx, from, argument)
}
