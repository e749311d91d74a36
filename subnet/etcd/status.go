package etcd

import (
	"sync"
	"time"
)

// Status says how etcd is doing, as seen from here. The zero value is "not yet asked".
type Status struct {
	Connected bool      // whether the last answer was an answer
	Since     time.Time // since when it is so
	LastError string    // of the last failure, also while connected again; empty if there was none
	Revision  int64     // of the last snapshot
	Relists   int64     // how often everything was listed
	Requests  int64     // sent since Open; events of a watch are none
	Races     int64     // lost since Open, and run again
}

// health is Status under a lock.
type health struct {
	mu      sync.Mutex // guards what follows
	ok      bool
	since   time.Time
	last    string
	rev     int64
	relists int64
	sent    int64
	races   int64
}

// Status returns how etcd is doing. It does not ask etcd.
func (r *Registry) Status() Status {
	h := &r.health
	h.mu.Lock()
	defer h.mu.Unlock()
	return Status{Connected: h.ok, Since: h.since, LastError: h.last, Revision: h.rev, Relists: h.relists, Requests: h.sent, Races: h.races}
}

func (h *health) request() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sent++
}

func (h *health) race() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.races++
}

func (h *health) good() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ok {
		h.ok, h.since = true, time.Now()
	}
}

func (h *health) bad(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ok {
		h.ok, h.since = false, time.Now()
	}
	h.last = err.Error()
}

// listed notes a full list; seen notes a revision.
func (h *health) listed(rev int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.relists++
	h.rev = rev
}

func (h *health) seen(rev int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rev = rev
}
