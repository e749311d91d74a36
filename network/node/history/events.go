package history

import (
	"sync"
	"time"
)

// Kind is the kind of an event. The values are part of the JSON of /events.
type Kind string

// The kinds of events.
const (
	PeerJoined Kind = "peer-joined"
	PeerLeft   Kind = "peer-left"
	Path       Kind = "path"     // the state of the path to a peer changed
	Repaired   Kind = "repaired" // the host had lost an object of the node, and has it again
	Engine     Kind = "engine"   // the userspace engine was replaced
	Guard      Kind = "guard"    // the guard caught packets in plaintext
	Problem    Kind = "problem"  // a problem appeared or is solved
	Store      Kind = "store"    // etcd went away or is back
	Ready      Kind = "ready"    // the node became ready, or ceased to be
)

// Event is a change that an operator may want to know of.
type Event struct {
	Number uint64    `json:"number"` // counts the events since the start, from 1
	At     time.Time `json:"at"`
	Kind   Kind      `json:"kind"`
	Object string    `json:"object"` // the peer, the part or the lease that changed
	Text   string    `json:"text"`   // a sentence without its object
}

// Capacity is the number of events that are kept.
const Capacity = 500

// Events is a ring of the last events. The zero value is empty and ready to use; it is safe
// for concurrent use.
type Events struct {
	mu      sync.Mutex // guards the fields below
	ring    []Event    // event number n stands at (n-1) % Capacity
	last    uint64     // number of the newest event; 0 before the first
	changed chan struct{}
}

// Add appends events, numbers them, and forgets the oldest events beyond Capacity.
func (e *Events) Add(events ...Event) {
	if len(events) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ev := range events {
		ev.Number = e.last + 1
		if len(e.ring) < Capacity {
			e.ring = append(e.ring, ev)
		} else {
			e.ring[e.last%Capacity] = ev
		}
		e.last++
	}
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}

// After returns the events that are newer than event number n, oldest first; After(0) returns
// all events that are kept. The channel is closed at the next Add.
func (e *Events) After(n uint64) ([]Event, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.changed == nil {
		e.changed = make(chan struct{})
	}
	n = max(n, e.last-uint64(len(e.ring)))
	out := []Event{}
	for ; n < e.last; n++ {
		out = append(out, e.ring[n%Capacity])
	}
	return out, e.changed
}
