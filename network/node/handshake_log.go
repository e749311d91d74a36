package node

import (
	"fmt"
	"time"

	"github.com/rs/zerolog"
)

// handshakeEvent is a change of the handshakes with a peer between two reports. The zero node
// and key stand for all peers.
type handshakeEvent struct {
	node, key, endpoint string
	text                string
}

// log writes the event for the debug level.
func (e handshakeEvent) log(l zerolog.Logger) {
	event := l.Debug()
	if e.key != "" {
		event = event.Str("node", e.node).Str("key", e.key).Str("endpoint", e.endpoint)
	}
	event.Msg(e.text)
}

// sessionEnd is the age at which WireGuard drops a keypair (REJECT_AFTER_TIME): a peer whose
// last handshake is older gets no data, and what is sent to it are initiations.
const sessionEnd = 180 * time.Second

// handshakeEvents returns the changes of the handshakes between two reports: handshakes that
// were made, initiations without an answer, and messages that the engine refused.
func handshakeEvents(before, now Report, at time.Time) []handshakeEvent {
	was := make(map[string]PeerReport, len(before.Peers))
	for _, p := range before.Peers {
		was[p.PublicKey] = p
	}
	var out []handshakeEvent
	for _, p := range now.Peers {
		q, known := was[p.PublicKey]
		e := handshakeEvent{node: p.Node, key: p.PublicKey, endpoint: p.Endpoint}
		switch {
		case !known || p.Sent < q.Sent: // a new peer, or a new engine
			continue
		case p.Handshake.After(q.Handshake):
			e.text = "handshake made"
		case p.Sent > q.Sent && at.Sub(p.Handshake) > sessionEnd:
			e.text = "handshake initiation sent, no answer"
		default:
			continue
		}
		out = append(out, e)
	}
	const refused = "handshake-rejected" // the reason in the engine's drops
	if n := now.Engine.Drops[refused]; n > before.Engine.Drops[refused] {
		out = append(out, handshakeEvent{text: fmt.Sprintf("%d handshake messages refused: forged, of no peer's key, replayed, not newer than the last (a clock that was set back), or too many", n-before.Engine.Drops[refused])})
	}
	return out
}
