package node

import (
	"sync"
	"time"
)

// The age of the sample against which rates are computed. A sample that is younger than
// leastAge gives rates of single packets; the rates over a sample that is older than mostAge
// say little about now.
const (
	leastAge = time.Second
	mostAge  = 2 * time.Minute
)

// rateKeeper computes the rates of the peers from their counters in two reports. The zero value
// is ready.
type rateKeeper struct {
	mu       sync.Mutex // guards the fields below
	old, new counterSample
}

// counterSample is the counters of the peers, by public key.
type counterSample struct {
	at    time.Time
	peers map[string][2]int64 // received, sent
}

// fill sets the rates of the peers of a report of the time now, and keeps their counters.
func (k *rateKeeper) fill(peers []PeerReport, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Sub(k.new.at) >= leastAge {
		k.old = k.new
		k.new = counterSample{at: now, peers: make(map[string][2]int64, len(peers))}
		for _, p := range peers {
			k.new.peers[p.PublicKey] = [2]int64{p.Received, p.Sent}
		}
	}
	passed := now.Sub(k.old.at)
	if passed < leastAge || passed > mostAge {
		return
	}
	for i, p := range peers {
		before, ok := k.old.peers[p.PublicKey]
		if !ok || p.Received < before[0] || p.Sent < before[1] { // a new peer, or a new engine
			continue
		}
		peers[i].Rated = true
		peers[i].ReceivedRate = float64(p.Received-before[0]) / passed.Seconds()
		peers[i].SentRate = float64(p.Sent-before[1]) / passed.Seconds()
	}
}
