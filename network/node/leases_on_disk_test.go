package node

import (
	"fmt"
	"os"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/subnet"
)

// savedOf is the content of the disk for a node n1 with these leases.
func savedOf(leases subnet.Leases) subnet.Saved {
	return subnet.Saved{At: time.Unix(1, 0), Document: []byte(savedDocument), Self: savedLease(1), Snapshot: subnet.Snapshot{Revision: 1, Leases: leases}}
}

// loaded returns the leases that a node finds on the disk.
func loaded(t interface{ Fatal(...any) }, dir string) subnet.Leases {
	s, _, err := loadSaved(dir, "n1", savedLease(1).Key)
	if err != nil {
		t.Fatal(err)
	}
	return s.Snapshot.Leases
}

// The disk has the last leases after any history, also when a run ends and another goes on, and
// when the last line of the log was cut off the leases before it.
func TestLeasesOnDiskAreTheLastThatWereSaved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "loden")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		disk, leases, before := leasesOnDisk{stateDir: dir}, savedSnapshot(1, 1).Leases, subnet.Leases{}
		for step := range rapid.IntRange(1, 30).Draw(t, "steps") {
			l := savedLease(rapid.IntRange(2, 9).Draw(t, "node"))
			l.Claimed = int64(step)
			before = leases
			if rapid.IntRange(0, 2).Draw(t, "kind") > 0 {
				leases = leases.With(l)
			} else {
				leases = leases.Without(l)
			}
			if rapid.IntRange(0, 9).Draw(t, "restart") == 0 {
				disk = leasesOnDisk{stateDir: dir}
			}
			if err := disk.save(savedOf(leases)); err != nil {
				t.Fatal(err)
			}
			if got := loaded(t, dir); !got.Equal(leases) {
				t.Fatalf("on disk %v, want %v", got, leases)
			}
		}
		log, err := os.ReadFile(logPath(dir))
		if err != nil || leases.Equal(before) {
			return
		}
		if err := os.WriteFile(logPath(dir), log[:len(log)-1], 0o600); err != nil {
			t.Fatal(err)
		}
		if got := loaded(t, dir); !got.Equal(before) {
			t.Fatalf("after a cut the disk has %v, want %v", got, before)
		}
	})
}

func TestAJoinWritesAFewLinesAndNotAllLeases(t *testing.T) {
	const nodes, joins = 3000, 2000
	dir := t.TempDir()
	disk, leases := leasesOnDisk{stateDir: dir}, manyLeases(0, nodes)
	if err := disk.save(savedOf(leases)); err != nil {
		t.Fatal(err)
	}
	written, file := 0, 0
	for _, l := range manyLeases(nodes, nodes+joins).Slice() {
		leases = leases.With(l)
		logged := disk.logged
		if err := disk.save(savedOf(leases)); err != nil {
			t.Fatal(err)
		}
		if disk.logged > logged {
			written += disk.logged - logged
		} else {
			written += disk.size
			file++
		}
	}
	if written/joins > 2<<10 || file == 0 {
		t.Errorf("%d bytes for a join on average; the file was written %d times", written/joins, file)
	}
	if got := loaded(t, dir); !got.Equal(leases) {
		t.Errorf("%d leases on disk, want %d", got.Len(), leases.Len())
	}
	again := leasesOnDisk{stateDir: dir}
	if err := again.save(savedOf(leases)); err != nil {
		t.Fatal(err)
	}
}

func TestLogOfAnotherFileAndDamagedLogsAreNotUsed(t *testing.T) {
	for name, log := range map[string]string{
		"of another file":      `{"follows":"0123456789abcdef"}` + "\n" + `{"drop":{"key":"10.244.2.0-24","since":2}}` + "\n",
		"without a first line": `{"drop":{"key":"10.244.2.0-24","since":2}}` + "\n",
		"garbage":              "\x00\xff",
		"empty":                "",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			saveLeases(t, dir, savedSnapshot(9, 1, 2, 3))
			if err := os.WriteFile(logPath(dir), []byte(log), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := loaded(t, dir); got.Len() != 3 {
				t.Errorf("the log took effect: %v", got)
			}
		})
	}
}

// manyLeases returns the leases of the nodes from a number to another.
func manyLeases(from, to int) subnet.Leases {
	out := subnet.Leases{}
	for i := from; i < to; i++ {
		l := savedLease(i % 250)
		l.Since, l.Node = int64(i+1), fmt.Sprintf("node-%d", i)
		l.Key[2], l.Key[3] = byte(i>>8), byte(i)
		out = out.With(l)
	}
	return out
}
