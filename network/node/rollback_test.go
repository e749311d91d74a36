package node

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

const otherDocument = `{"Network":"10.99.0.0/16","Backend":{"Type":"wireguard"}}`

// overlayOf returns the overlay that a node uses.
func overlayOf(n *node) string { return n.reconciler.Inputs().Network.Ranges.V4.String() }

// losing runs a node, and then puts a document after which the store is away.
func losing(t *testing.T) (b *bed, n *node, stop func() error) {
	t.Helper()
	b = newBed(t, bedDocument, 2)
	n, stop = b.run()
	before, _ := b.store.Stored("n1").Get()
	b.store.Change(func() { b.store.Document, b.store.Leases = documentOf(t, otherDocument), nil })
	later(2 * time.Second)
	if got := overlayOf(n); !strings.Contains(got, "10.99.0.0") {
		t.Fatalf("the overlay is %s, want that of the new document", got)
	}
	b.store.Change(func() { b.store.Away = etcd.ErrUnavailable })
	later(trialLoss - 10*time.Second)
	if got := overlayOf(n); !strings.Contains(got, "10.99.0.0") {
		t.Fatalf("the document was taken back early: %s", got)
	}
	later(20 * time.Second)
	in := n.reconciler.Inputs()
	if own, _ := in.Lease.Get(); !strings.Contains(overlayOf(n), "10.244.0.0") || own.Subnets != before.Subnets {
		t.Fatalf("overlay %s with lease %v, want the document and the lease before", overlayOf(n), own)
	}
	return b, n, stop
}

// S3: a node that a document cut off from its store never heard of a better document.
func TestDocumentThatCostsTheNodeItsStoreIsTakenBackAndRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, n, stop := losing(t)
		b.store.Change(func() { b.store.Away = nil }) // the document before leads to the store
		later(5 * time.Minute)
		rep := n.reporter.report(t.Context())
		if !strings.Contains(overlayOf(n), "10.244.0.0") || !strings.Contains(rep.Reason, "lost the store for a minute") || rep.Healthy() {
			t.Errorf("overlay %s, reason %q", overlayOf(n), rep.Reason)
		}
		if b.logged.count("the document before is used again") != 1 {
			t.Error("the log does not tell of it once")
		}
		b.store.Change(func() { b.store.Document = documentOf(t, `{"Network":"10.98.0.0/16","Backend":{"Type":"wireguard"}}`) })
		later(5 * time.Minute)
		if rep := n.reporter.report(t.Context()); !strings.Contains(overlayOf(n), "10.98.0.0") || !rep.Healthy() {
			t.Errorf("after a better document: overlay %s, reason %q", overlayOf(n), rep.Reason)
		}
		must(t, stop())
	})
}

func TestSameDocumentWrittenAgainIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, n, stop := losing(t)
		b.store.Change(func() { b.store.Away = nil })
		later(5 * time.Second)
		b.store.Change(func() { b.store.Document.Data = append([]byte(" "), b.store.Document.Data...) })
		later(5 * time.Minute)
		if got := overlayOf(n); !strings.Contains(got, "10.99.0.0") {
			t.Errorf("the overlay is %s", got)
		}
		must(t, stop())
	})
}

func TestOutageOfTheStoreAfterANewDocumentIsNotTheDocumentsFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, n, stop := losing(t)
		later(2 * time.Minute) // the document before leads to no store either
		b.store.Change(func() { b.store.Away = nil })
		later(5 * time.Second)
		if rep := n.reporter.report(t.Context()); !strings.Contains(overlayOf(n), "10.99.0.0") || !rep.Healthy() {
			t.Errorf("overlay %s, reason %q", overlayOf(n), rep.Reason)
		}
		must(t, stop())
	})
}

func TestShortOutageTakesNoDocumentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		n, stop := b.run()
		b.store.Change(func() { b.store.Document, b.store.Leases = documentOf(t, otherDocument), nil })
		later(time.Second)
		b.store.Change(func() { b.store.Away = etcd.ErrUnavailable })
		later(trialLoss / 2)
		b.store.Change(func() { b.store.Away = nil })
		later(trialTime)
		b.store.Change(func() { b.store.Away = etcd.ErrUnavailable }) // long after the document
		later(10 * time.Minute)
		if got := overlayOf(n); !strings.Contains(got, "10.99.0.0") {
			t.Errorf("the overlay is %s", got)
		}
		must(t, stop())
	})
}

// S7: a node without a lease ended when every subnet was taken, and so forgot the age of the
// owner keys without a lease, which it may take over after their time to live.
func TestNodeWaitsForASubnetWhileNoneIsFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument)
		b.store.ReadOnly = errors.Join(errors.New("acquire lease"), subnet.ErrOutOfSubnets)
		n, stop := b.run()
		later(time.Hour)
		if rep := n.reporter.report(t.Context()); rep.Ready || !strings.Contains(rep.Reason, "out of subnets") || b.logged.count("out of subnets") != 1 {
			t.Errorf("ready %t, reason %q", rep.Ready, rep.Reason)
		}
		b.store.Change(func() { b.store.ReadOnly = nil })
		later(2 * time.Second)
		if rep := n.reporter.report(t.Context()); !rep.Healthy() {
			t.Errorf("after a subnet became free: %q", rep.Reason)
		}
		must(t, stop())
	})
}
