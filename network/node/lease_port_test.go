package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/subnet/etcd"
)

const movedDocument = `{"Network":"10.244.0.0/16","Backend":{"Type":"wireguard","ListenPort":4000}}`

// ports returns the ports that the interface of a bed got, in order.
func ports(b *bed) string {
	var out []string
	for _, c := range b.device.Calls() {
		if port, ok := strings.CutPrefix(c, "listen on "); ok && !slices.Contains(out[max(0, len(out)-1):], port) {
			out = append(out, port)
		}
	}
	return strings.Join(out, " ")
}

// C2: a peer that reads the new port before the node listens on it sends into the void.
func TestNodeListensOnANewPortBeforeItPublishesThePort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		_, stop := b.run()
		b.store.Change(func() { // the document can be read, and no lease can be written
			b.store.Document, b.store.ReadOnly = documentOf(t, movedDocument), errNoSpace
		})
		synctest.Wait()
		if got := ports(b); got != "51820 4000 51820" {
			t.Errorf("the interface listened on %s, want 4000 before the refusal and the published 51820 after it", got)
		}
		b.store.Change(func() { b.store.ReadOnly = nil })
		later(2 * time.Second)
		if own, _ := b.store.Stored("n1").Get(); ports(b) != "51820 4000 51820 4000" || !strings.Contains(fmt.Sprint(own.Endpoints), ":4000") {
			t.Errorf("the interface listened on %s, the store has %v", ports(b), own.Endpoints)
		}
		must(t, stop())
	})
}

func TestPublicationWithoutAnAnswerIsRepeatedSooner(t *testing.T) {
	if again := announceAgain(fmt.Errorf("put: %w", etcd.ErrUnavailable)); again > time.Second/4 {
		t.Errorf("after no answer: again in %v", again)
	}
	if again := announceAgain(errors.New("no space")); again < time.Second {
		t.Errorf("after a refusal: again in %v", again)
	}
}
