package network

import (
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/diff"
)

// logChange logs a change that was made. The changes of a start are for readers of the debug
// level: a single line tells of them when the data path is in place.
func (r *Reconciler) logChange(c diff.Change) {
	event := r.log.Info()
	if r.starting {
		event = r.log.Debug()
	}
	if !event.Enabled() {
		return
	}
	if name := r.nodeOf(c.Object); name != "" {
		event = event.Str("node", name)
	}
	event.Str("part", c.Part).Str("verb", c.Verb).Str("object", c.Object).Msg("changed")
}

// nodeOf returns the name of the node whose public key the object of a change names ("peer
// KEY …"), or "".
func (r *Reconciler) nodeOf(object string) string {
	words := strings.Fields(object)
	if len(words) < 2 || words[0] != "peer" {
		return ""
	}
	key, err := wgtypes.ParseKey(words[1])
	if err != nil {
		return ""
	}
	return r.planner.nodeOf(key)
}
