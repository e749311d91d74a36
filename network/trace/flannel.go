package trace

import (
	"fmt"
	"slices"
	"strings"
)

// flannelLinks are the interfaces that flannel's backends make.
func flannelLinks() []string {
	return []string{"flannel.1", "flannel-v6.1", "flannel-wg", "flannel-wg-v6", "flannel0", "flannel.4096"}
}

// CheckFlannel looks for interfaces that flannel left. Their routes are more specific than the
// overlay's, and send packets past the tunnel.
func (h Host) CheckFlannel() Finding {
	const what = "flannel's leftovers"
	links, err := h.Kernel.Links()
	if err != nil {
		return Finding{What: what, State: Unknown, Detail: err.Error()}
	}
	var found, remedies []string
	for _, l := range links {
		if l.Name != h.Tunnel && slices.Contains(flannelLinks(), l.Name) {
			found, remedies = append(found, l.Name), append(remedies, "ip link del "+l.Name)
		}
	}
	if len(found) == 0 {
		return Finding{What: what, State: Good, Detail: "none"}
	}
	return Finding{
		What: what, State: Warn, Detail: fmt.Sprintf("the interface %s of flannel is still there; its routes can send packets of pods past the tunnel", strings.Join(found, " and ")),
		Remedy: "when flannel does not run on this node any more: " + strings.Join(remedies, "; "),
	}
}
