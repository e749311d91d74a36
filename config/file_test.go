package config_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/loden-net/loden/config"
)

func TestSweepRemovesTheTemporaryFilesOfAPathAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "leases.json")
	keep := []string{"leases.json", ".leases.json", ".leases.json.bak", ".leases.json.12a", ".other.json.1", "leases.json.1", ".leases.json."}
	gone := []string{".leases.json.1", ".leases.json.3529532030"}
	for _, name := range append(keep, gone...) {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, ".leases.json.7"), 0o700); err != nil {
		t.Fatal(err)
	}
	// A write that was interrupted leaves a name that Sweep knows.
	tmp, err := os.CreateTemp(dir, ".leases.json.*")
	if err != nil {
		t.Fatal(err)
	}
	_ = tmp.Close()
	if err := config.Sweep(path); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != len(keep)+1 {
		t.Errorf("left %v, %v; want %v and a directory", left, err, keep)
	}
	if err := config.Sweep(filepath.Join(dir, "absent", "file")); err != nil {
		t.Errorf("a directory that does not exist: %v", err)
	}
}
