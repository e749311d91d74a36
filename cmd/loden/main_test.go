package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/config"
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
		{"unknown command", []string{"statsu"}, "unknown command \"statsu\": did you mean `loden status`?"},
		{"unknown command below a group", []string{"lease", "lst"}, "did you mean `loden lease list`?"},
		{"unknown command without a neighbour", []string{"frobnicate"}, "unknown command \"frobnicate\" (see loden --help)"},
		{"an argument too many", []string{"run", "extra"}, "run: got the argument \"extra\": write `loden run`"},
		{"an argument too few", []string{"lease", "release"}, "got no argument: write `loden lease release NODE`"},
		{"two arguments too many", []string{"engine", "a", "b", "c"}, "got 3 arguments (a b c): write `loden engine IFACE`"},
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

func TestErrorsAreJSONTooWhereJSONIsAskedFor(t *testing.T) {
	for _, args := range [][]string{{"status", "--json"}, {"status", "--json", "--matrix"}, {"why", "a", "b", "--json"}} {
		status, out, stderr := loden(t, append(args, "--run-dir", t.TempDir())...)
		var got struct {
			APIVersion, ExitStatus int
			Error                  string
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil || got.APIVersion != 1 || got.ExitStatus != status || status != exitNoDaemon || !strings.Contains(stderr, got.Error) {
			t.Errorf("%v: status %d, %v, %q", args, status, err, out)
		}
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

func TestGroupsPrintTheirHelp(t *testing.T) {
	for _, args := range [][]string{{}, {"lease"}, {"network"}} {
		if status, out, _ := loden(t, args...); status != 0 || !strings.Contains(out, "Available Commands") {
			t.Errorf("loden %v: status %d, %q", args, status, out)
		}
	}
}

func TestShellCompletesTheChoicesOfAFlag(t *testing.T) {
	for line, want := range map[string]string{
		"run --engine": "auto\nkernel\nwireguard-go\nloden\n", "engine --engine": "wireguard-go\nloden\n",
		"check --guard": "enforce\nwarn\noff\n", "status --log-format": "auto\ntext\njson\n",
	} {
		if _, out, _ := loden(t, append(append([]string{"__complete"}, strings.Fields(line)...), "")...); !strings.HasPrefix(out, want) {
			t.Errorf("loden %s: %q", line, out)
		}
	}
}

func TestLogTimesHaveMilliseconds(t *testing.T) {
	for format, want := range map[string]string{
		"json": `"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","message":"a"`,
		"text": `^\d\d:\d\d:\d\d\.\d{3} INF a part=routes verb=add object=x other=1`,
	} {
		var out, times []string
		for range 20 {
			var b bytes.Buffer
			log, err := newLogger(&config.Node{LogLevel: "info", LogFormat: format}, &b)
			if err != nil {
				t.Fatal(err)
			}
			log.Info().Int("other", 1).Str("object", "x").Str("verb", "add").Str("part", "routes").Msg("a")
			if !regexp.MustCompile(want).MatchString(b.String()) {
				t.Fatalf("%s: %s", format, &b)
			}
			out = append(out, b.String())
			times = append(times, regexp.MustCompile(`\.\d{3}`).FindString(b.String()))
			<-time.After(time.Millisecond)
		}
		if slices.Sort(times); times[0] == times[len(times)-1] {
			t.Errorf("%s: every log line has the same milliseconds: %s", format, out[0])
		}
	}
}
