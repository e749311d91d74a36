package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDocumentNamesModulesAndPackagesOnce(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(t.TempDir(), "packages")
	if err := os.WriteFile(list, []byte("nftables 1.0.6-2 amd64\nnftables 1.0.6-2 amd64\nnot a package line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := write(out, "loden", "v1", list, []string{self, self}); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two runs gave two documents")
	}
	if !json.Valid(first.Bytes()) {
		t.Error("not JSON")
	}
	for _, want := range []string{"pkg:deb/debian/nftables@1.0.6-2?arch=amd64", "pkg:golang/stdlib@", "SPDX-2.3"} {
		if n := strings.Count(first.String(), want); n != 1 {
			t.Errorf("%q is there %d times", want, n)
		}
	}
}
