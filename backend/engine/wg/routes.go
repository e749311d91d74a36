package wg

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/gaissmai/bart"
)

// routes is cryptokey routing (section 2): it maps inner addresses to peers. Reading takes no lock;
// the table that is read never changes, a changed copy replaces it.
type routes struct {
	table atomic.Pointer[bart.Table[*member]]
	mu    sync.Mutex // held while replacing table
}

// lookup returns the peer that an address is routed to, or nil.
func (r *routes) lookup(a netip.Addr) *member {
	t := r.table.Load()
	if t == nil {
		return nil
	}
	p, _ := t.Lookup(a)
	return p
}

// edit is a series of changes that become visible together, at commit. Changes of one peer
// copy the few nodes on their way; the first hundred do so, then the whole table is copied
// once and changed in place.
type edit struct {
	routes  *routes
	table   *bart.Table[*member]
	changes int
}

// begin starts an edit. A second edit waits until the first is committed.
func (r *routes) begin() *edit {
	r.mu.Lock()
	t := r.table.Load()
	if t == nil {
		t = new(bart.Table[*member])
	}
	return &edit{routes: r, table: t}
}

const copiesBeforeClone = 100

// own replaces the table by a private copy, which is not read yet, when many changes come.
func (e *edit) own() (private bool) {
	e.changes++
	if e.changes == copiesBeforeClone {
		e.table = e.table.Clone()
	}
	return e.changes >= copiesBeforeClone
}

// owner returns the peer that has exactly this prefix, or nil.
func (e *edit) owner(prefix netip.Prefix) *member {
	p, _ := e.table.Get(prefix)
	return p
}

func (e *edit) insert(prefix netip.Prefix, p *member) {
	if e.own() {
		e.table.Insert(prefix, p)
	} else {
		e.table = e.table.InsertPersist(prefix, p)
	}
}

func (e *edit) remove(prefix netip.Prefix) {
	if e.own() {
		e.table.Delete(prefix)
	} else {
		e.table = e.table.DeletePersist(prefix)
	}
}

// commit publishes the changes and ends the edit.
func (e *edit) commit() {
	e.routes.table.Store(e.table)
	e.routes.mu.Unlock()
}
