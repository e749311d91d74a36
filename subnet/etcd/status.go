package etcd

import (
	"sync"
	"time"
)

// Status says how etcd is doing, as seen from here. The zero value is "not yet asked".
type Status struct {
	Connected bool      // whether etcd answered the last request
	Since     time.Time // since when Connected has its value
	LastError string    // of the last failure or refusal, also while connected again; empty if there was none
	Revision  int64     // of the last snapshot
	Relists   int64     // how often all leases were listed
	Requests  int64     // sent since Open; events of a watch do not count
	Races     int64     // lost since Open, and run again
}

// health is Status under a lock.
type health struct {
	mu      sync.Mutex // guards the fields below
	ok      bool
	since   time.Time
	last    string
	rev     int64
	relists int64
	sent    int64
	races   int64
}

func (h *health) status() Status {
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

// refused records an answer that was a refusal.
func (h *health) refused(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ok {
		h.ok, h.since = true, time.Now()
	}
	h.last = err.Error()
}

// listed records a full list; seen records a revision.
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
