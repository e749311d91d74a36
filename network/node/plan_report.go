package node

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
)

// planAnswer is the body of /plan: the desired state of this node's kernel, and the changes
// by which the last pass made the kernel agree with it.
type planAnswer struct {
	APIVersion int           `json:"apiVersion"` // 1
	At         time.Time     `json:"at,omitzero"`
	Error      string        `json:"error,omitempty"` // why the last pass was incomplete
	Parts      []plannedPart `json:"parts"`
	Made       []diff.Change `json:"made"` // by the last pass
}

// plannedPart is the desired content of a part, as lines for a reader.
type plannedPart struct {
	Part  string   `json:"part"`
	Lines []string `json:"lines"`
}

// servePlan answers with the plan of the last pass.
func servePlan(status func() (network.Status, bool)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		s, _ := status()
		answer := planAnswer{APIVersion: 1, At: s.At, Parts: plannedParts(s.State), Made: append([]diff.Change{}, s.Made...)}
		if s.Err != nil {
			answer.Error = oneLine(s.Err.Error())
		}
		writeJSON(w, answer)
	}
}

// plannedParts describes a state. It leaves the peers to the report, and keeps the preshared
// key to itself.
func plannedParts(s network.State) []plannedPart {
	parts := []plannedPart{}
	add := func(part string, lines ...string) { parts = append(parts, plannedPart{part, lines}) }
	device, ok := s.Device.Get()
	if !ok {
		return parts
	}
	add("firewall", plannedRules(s.Firewall)...)
	var lines []string
	for _, c := range s.Sysctls {
		lines = append(lines, strings.NewReplacer("/", ".", ".", "/").Replace(c.Path)+" = "+c.Value)
	}
	add("sysctls", lines...)
	lines = []string{fmt.Sprintf("UDP port %d, MTU %d bytes, peers: %d", device.Port, device.MTU, device.Peers.Len())}
	for f, a := range device.Addresses.All() {
		lines = append(lines, fmt.Sprintf("%s address %s", f, a))
	}
	add("device", lines...)
	lines = nil
	for _, r := range s.Routes {
		lines = append(lines, r.String())
	}
	add("routes", lines...)
	if env, ok := s.Env.Get(); ok {
		lines = nil
		for f, p := range env.Subnets.All() {
			lines = append(lines, fmt.Sprintf("%s pods get addresses of %s", f, p))
		}
		add("env", lines...)
	}
	return parts
}

// plannedRules describes the rules of the firewall by what they do.
func plannedRules(c firewall.Config) []string {
	var lines []string
	for f := range c.Masq.All() {
		lines = append(lines, f.String()+" from pods to the outside is masqueraded")
	}
	for f := range c.Forward.All() {
		lines = append(lines, f.String()+" from and to the overlay is forwarded")
	}
	for f, s := range c.Guard.Scopes.All() {
		lines = append(lines, fmt.Sprintf("%s packets of %s in plaintext: guard %s", f, s.Network, c.Guard.Mode))
	}
	return lines
}
