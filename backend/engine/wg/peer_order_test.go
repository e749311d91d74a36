package wg

import (
	"slices"
	"strings"
	"testing"
)

// dumpedKeys returns the public keys in a dump.
func dumpedKeys(t testing.TB, d *Device) (keys []string) {
	t.Helper()
	for line := range strings.Lines(described(t, d)) {
		if k, ok := strings.CutPrefix(line, "public_key="); ok {
			keys = append(keys, strings.TrimSpace(k))
		}
	}
	return keys
}

func TestDumpHasThePeersInOrderAfterEveryChange(t *testing.T) {
	d := manyConfigured(t, 300)
	check := func(after string, want int) {
		t.Helper()
		if keys := dumpedKeys(t, d); len(keys) != want || !slices.IsSorted(keys) {
			t.Errorf("after %s: %d peers, sorted: %t; want %d in order", after, len(keys), slices.IsSorted(keys), want)
		}
	}
	check("the start", 300)
	for _, change := range []struct {
		text string
		want int
	}{
		{"public_key=" + key(7) + "\n", 301},
		{"public_key=" + key(1005) + "\nremove=true\n", 300},
		{"public_key=" + key(1006) + "\nallowed_ip=10.99.0.0/24\n", 300},
		{"replace_peers=true\npublic_key=" + key(9) + "\npublic_key=" + key(8) + "\n", 2},
	} {
		if err := configure(d, change.text); err != nil {
			t.Fatal(err)
		}
		check(change.text, change.want)
	}
}

// A monitor that asks every second must not make packets wait for a sort of 10,000 peers.
func TestDumpSortsOnceForEveryChange(t *testing.T) {
	d := manyConfigured(t, 300)
	described(t, d)
	first, _ := d.order.kept()
	if described(t, d); first == nil {
		t.Fatal("no order is kept")
	}
	if second, _ := d.order.kept(); &second[0] != &first[0] {
		t.Error("the second dump sorted again")
	}
}

// The scheduler must hear of the sort before it begins, while packets have a single processor, and a
// configuration must not wait for it.
func TestDumpTellsOfItsWorkBeforeItSorts(t *testing.T) {
	d := manyConfigured(t, manyPeers)
	early := false
	d.OnLoad(func() {
		if sorted, _ := d.order.kept(); sorted == nil && d.mu.TryLock() {
			early = true
			d.mu.Unlock()
		}
	})
	if described(t, d); !early {
		t.Error("the first word of the work came after the sort, or under the lock")
	}
}

// A peer that comes while a dump sorts is missing in that dump and not in the next.
func TestOrderOfAnEarlierChangeIsNotKept(t *testing.T) {
	d := manyConfigured(t, manyPeers)
	once := true
	d.OnLoad(func() {
		if once {
			once = false
			if err := configure(d, "public_key="+key(3)+"\n"); err != nil {
				t.Error(err)
			}
		}
	})
	described(t, d)
	if got := len(dumpedKeys(t, d)); got != manyPeers+1 {
		t.Errorf("%d peers in the next dump, want %d", got, manyPeers+1)
	}
}
