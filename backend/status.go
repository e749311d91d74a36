package backend

import (
	"net/netip"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// Status is the interface at a moment, for people and for metrics.
type Status struct {
	Name      string       `json:"name"`
	Kind      Kind         `json:"kind"`                // the data path
	Reason    string       `json:"reason"`              // why this data path was chosen
	Exists    bool         `json:"exists"`              // the interface exists
	Up        bool         `json:"up"`                  // it is up and WireGuard answers
	Silent    bool         `json:"silent,omitempty"`    // WireGuard gave no answer within two seconds
	Replaced  uint64       `json:"enginesReplaced"`     // engines that hung and were ended, since this process began
	MTU       int          `json:"mtu"`                 // bytes
	Port      uint16       `json:"port"`                // UDP
	PublicKey string       `json:"publicKey"`           // base64; "" before a key is set
	EnginePID int          `json:"enginePid,omitempty"` // 0 in kernel mode, and while no engine runs
	Peers     []PeerStatus `json:"peers"`               // sorted by key
	Problems  []Problem    `json:"problems,omitempty"`  // that the last Changes found

	// Drops are the packets that the engine dropped since it began, by reason; Offloads is
	// the state of each offload of the engine. Both are empty in kernel mode, and for an engine
	// that does not tell.
	Drops    map[string]uint64 `json:"drops,omitempty"`
	Offloads map[string]string `json:"offloads,omitempty"`
}

// PeerStatus is a peer at a moment.
type PeerStatus struct {
	PublicKey string                     `json:"publicKey"`
	Endpoint  opt.Option[netip.AddrPort] `json:"endpoint,omitzero"`      // configured or learned
	Subnets   []netip.Prefix             `json:"subnets"`                // allowed IPs
	Handshake time.Time                  `json:"lastHandshake,omitzero"` // zero: none yet
	Received  int64                      `json:"receivedBytes"`
	Sent      int64                      `json:"sentBytes"`
}

// statusOf converts the observed state. An interface of another program counts as missing.
func statusOf(have state) Status {
	s := Status{Peers: []PeerStatus{}}
	l, exists := have.link.Get()
	if !exists || !l.ours() {
		return s
	}
	wg, answers := have.wg.Get()
	s.Exists, s.Up, s.MTU, s.Port = true, l.up && answers, l.mtu, wg.port
	if owner, ok := have.engine.Get(); ok {
		s.EnginePID = owner.PID
	}
	if !wg.key.Equal(PrivateKey{}) {
		s.PublicKey = wg.key.Public().String()
	}
	for _, p := range wg.peers {
		q := PeerStatus{PublicKey: p.key.String(), Subnets: p.prefixes, Handshake: p.handshake, Received: p.rx, Sent: p.tx}
		if p.endpoint.IsValid() {
			q.Endpoint = opt.Some(p.endpoint)
		}
		s.Peers = append(s.Peers, q)
	}
	return s
}
