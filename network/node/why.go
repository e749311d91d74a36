package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
)

// Explanation is the way of a packet between two pods or nodes, hop by hop: the body of
// `loden why --json`.
type Explanation struct {
	APIVersion int    `json:"apiVersion"`
	From       End    `json:"from"`
	To         End    `json:"to"`
	Hops       []Hop  `json:"hops"`
	Broken     bool   `json:"broken"`               // a hop fails
	Incomplete bool   `json:"incomplete,omitempty"` // a node gave no answer, so that its half is not known
	Verdict    string `json:"verdict"`              // the first broken hop in words
	Remedy     string `json:"remedy,omitempty"`
}

// End is an end of the way.
type End struct {
	Asked   string     `json:"asked"` // as the operator wrote it
	Node    string     `json:"node"`
	Address netip.Addr `json:"address"`
	Pod     bool       `json:"pod"` // the address is a pod's; otherwise the node's own address in the overlay

	key  wgtypes.Key
	self bool // this node
}

// Hop is a step of the way, on a node.
type Hop struct {
	Node string `json:"node"`
	Finding
}

// errEnd says that an argument names neither a node nor a pod.
var errEnd = errors.New("neither a node of this cluster nor an address of a pod")

// why follows packets between two ends. Each node's daemon answers for its own half; a node
// that gives no answer leaves its half unknown.
func (n *node) why(ctx context.Context, from, to string) (Explanation, error) {
	ctx, cancel := context.WithTimeout(ctx, whyLimit)
	defer cancel()
	x := Explanation{APIVersion: apiVersion}
	var err error
	if x.From, x.To, err = n.ends(ctx, from, to); err != nil {
		return x, err
	}
	if x.From.Node == x.To.Node {
		x.Hops = n.half(ctx, errand{Role: roleLocal, Src: x.From.Address, Dst: x.To.Address, SrcPod: x.From.Pod, DstPod: x.To.Pod}, x.From)
	} else {
		e := errand{Src: x.From.Address, Dst: x.To.Address, SrcPod: x.From.Pod, DstPod: x.To.Pod}
		out, in := e, e
		out.Role, out.Peer = roleSender, x.To.key.String()
		in.Role, in.Peer = roleReceiver, x.From.key.String()
		x.Hops = append(n.half(ctx, out, x.From), n.half(ctx, in, x.To)...)
	}
	x.judge()
	return x, nil
}

// judge makes the verdict of the hops.
func (x *Explanation) judge() {
	about := fmt.Sprintf("%s → %s", x.From.Address, x.To.Address)
	for _, state := range []State{Bad, Warn, Unknown} {
		for _, h := range x.Hops {
			if h.State != state || state == Unknown && h.What != farSide {
				continue
			}
			x.Broken, x.Incomplete, x.Remedy = state == Bad, state == Unknown, h.Remedy
			x.Verdict = fmt.Sprintf("%s is broken at %s on %s: %s", about, h.What, h.Node, h.Detail)
			switch state {
			case Warn:
				x.Verdict = fmt.Sprintf("%s passes with a warning at %s on %s: %s", about, h.What, h.Node, h.Detail)
			case Unknown:
				x.Verdict = fmt.Sprintf("%s: no fault up to %s; its half is not known: %s", about, h.Node, h.Detail)
			}
			return
		}
	}
	x.Verdict = about + ": every step passes"
}

// errand asks a node for its half of the way. It crosses the tunnel as JSON.
type errand struct {
	Role           string     `json:"role"`
	Src            netip.Addr `json:"src"`
	Dst            netip.Addr `json:"dst"`
	SrcPod, DstPod bool
	Peer           string `json:"peer"` // public key of the node at the other end
}

// The halves of a way.
const (
	roleSender   = "sender"   // from the pod into the tunnel
	roleReceiver = "receiver" // out of the tunnel to the pod, and the way back
	roleLocal    = "local"    // between two pods of a node
)

// farSide is the hop that stands for the half of a node that gives no answer.
const farSide = "far side"

// half returns a node's half of the way: this node's by itself, another node's by its daemon.
func (n *node) half(ctx context.Context, e errand, at End) []Hop {
	var findings []Finding
	if at.self {
		findings = n.walk(ctx, e)
	} else {
		findings = n.askHalf(ctx, e, at)
	}
	var out []Hop
	for _, f := range findings {
		out = append(out, Hop{Node: at.Node, Finding: f})
	}
	return out
}

// askHalf asks another node's daemon for its half.
func (n *node) askHalf(ctx context.Context, e errand, at End) []Finding {
	ctx, cancel := context.WithTimeout(ctx, askHalfLimit)
	defer cancel()
	question, err := json.Marshal(e)
	if err == nil {
		var reply []byte
		if reply, err = n.ask(ctx, at.key, "why "+string(question)); err == nil {
			var findings []Finding
			if err = json.Unmarshal(reply, &findings); err == nil {
				return findings
			}
		}
	}
	return []Finding{{What: farSide, State: Unknown, Detail: fmt.Sprintf("the daemon of %s gives no answer through the tunnel (%s)", at.Node, oneLine(err.Error())),
		Remedy: "run the same `loden why` on " + at.Node}}
}

// answerWhy answers the question "why" of another node with the findings of this node's half.
func (n *node) answerWhy(ctx context.Context, _ wgtypes.Key, argument string) ([]byte, error) {
	var e errand
	if err := json.Unmarshal([]byte(argument), &e); err != nil {
		return nil, fmt.Errorf("read the question: %w", err)
	}
	return json.Marshal(n.walk(ctx, e))
}

// ends finds both ends, in a family that both have.
func (n *node) ends(ctx context.Context, from, to string) (a, b End, err error) {
	for _, f := range n.familiesOf(from, to) {
		if a, err = n.end(ctx, from, f); err != nil {
			continue
		}
		if b, err = n.end(ctx, to, f); err == nil {
			return a, b, nil
		}
	}
	return a, b, err
}

// familiesOf returns the families in which the ends are looked for: an address fixes the family.
func (n *node) familiesOf(texts ...string) []opt.Family {
	for _, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil && n.inOverlay(a) {
			return []opt.Family{opt.FamilyOf(a)}
		}
	}
	families := opt.Families()
	return families[:]
}

// inOverlay reports whether an address lies in the overlay.
func (n *node) inOverlay(a netip.Addr) bool {
	r, ok := n.reconciler.Inputs().Network.Ranges.Of(opt.FamilyOf(a)).Get()
	return ok && r.Network.Contains(a)
}

// end finds an end in a family: a node by its name or by an address that it announces, a pod by
// its address, or a pod of this node by its name.
func (n *node) end(ctx context.Context, text string, f opt.Family) (End, error) {
	e := End{Asked: text}
	a, err := netip.ParseAddr(text)
	if err != nil {
		if p, ok := podNamed(text); ok && p.Of(f).Present() {
			a, err = p.Of(f).Or(a), nil
		}
	}
	for _, m := range n.members(ctx) {
		subnet, has := m.Subnets.Of(f).Get()
		announced := err == nil && (m.Endpoints.V4.Or(netip.AddrPort{}).Addr() == a || m.Endpoints.V6.Or(netip.AddrPort{}).Addr() == a)
		switch {
		case !has:
		case err == nil && subnet.Contains(a):
			e.Node, e.Address, e.Pod = m.Node, a, a != subnet.Addr()
			e.key, e.self = m.Key, m.self
			return e, nil
		case strings.EqualFold(m.Node, text), announced:
			e.Node, e.Address, e.key, e.self = m.Node, subnet.Addr(), m.Key, m.self
			return e, nil
		}
	}
	return e, fmt.Errorf("%q is %w: loden lease list names the nodes, and a pod is named by its address", text, errEnd)
}
