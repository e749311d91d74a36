package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loden-net/loden/test/sandbox/linediff"
)

// loden runs a command line in this process.
func loden(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = execute(t.Context(), args, &out, &errs)
	return status, out.String(), errs.String()
}

func TestBadUsageIsOneLineAndStatusTwo(t *testing.T) {
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"unknown flag", []string{"run", "--colour"}, "see loden run --help"},
		{"bad engine", []string{"run", "--engine", "fast"}, "--engine \"fast\": choose one of auto"},
		{"several at once", []string{"run", "--engine", "fast", "--guard", "maybe"}, "; --guard"},
		{"bad log level", []string{"check", "--log-level", "loud"}, "choose one of debug"},
		{"no node name", []string{"plan", "--node-name", ""}, "--node-name"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, _, stderr := loden(t, tt.args...)
			if status != 2 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, tt.want) {
				t.Errorf("status %d, stderr %q", status, stderr)
			}
		})
	}
}

func TestEnvironmentVariablesAreCheckedLikeFlags(t *testing.T) {
	t.Setenv("LODEN_LEASE_TTL", "soon")
	if status, _, stderr := loden(t, "run"); status != 2 || !strings.Contains(stderr, "LODEN_LEASE_TTL") {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
}

func TestStatusWithoutADaemonSaysWhatToStart(t *testing.T) {
	status, _, stderr := loden(t, "status", "--run-dir", t.TempDir())
	if status != exitNoDaemon || !strings.Contains(stderr, "start `loden run`") {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
}

func TestReferenceIsUpToDate(t *testing.T) {
	want := reference(rootCommand())
	got, err := os.ReadFile(filepath.Join("..", "..", "docs", "reference", "loden.md"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := linediff.Of(string(want), string(got)); diff != "" {
		t.Errorf("run `make docs` (-want +got):\n%s", diff)
	}
}
