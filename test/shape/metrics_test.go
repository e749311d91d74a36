package shape_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// metricsOf returns the metrics that the code of the node describes, with their labels.
func metricsOf(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../network/node/metrics*.go")
	if err != nil {
		t.Fatal(err)
	}
	single := regexp.MustCompile(`metric\("([a-z_]+)", "[^"]*"((?:, "[a-z_]+")*)\)`)
	histogram := regexp.MustCompile(`(?s)HistogramOpts\{\s*Name: "([a-z_]+)".*?\}(?:, \[\]string\{(.*?)\})?\)`)
	out := map[string]string{}
	for _, file := range append(files, "../../network/node/histograms.go") {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range append(single.FindAllSubmatch(data, -1), histogram.FindAllSubmatch(data, -1)...) {
			var labels []string
			for l := range strings.SplitSeq(string(m[2]), ",") {
				if l = strings.Trim(l, ` "`); l != "" {
					labels = append(labels, "`"+l+"`")
				}
			}
			out[string(m[1])] = strings.Join(labels, ", ")
		}
	}
	return out
}

// TestTheTableOfMetricsIsTheCode compares docs/metrics.md with the code, in both directions.
func TestTheTableOfMetricsIsTheCode(t *testing.T) {
	code, table := metricsOf(t), map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (?:gauge|counter|histogram) \\| ?([^|]*?) \\| [^|]+ \\|$").FindAllStringSubmatch(read(t, "docs/metrics.md"), -1) {
		table[m[1]] = strings.TrimSpace(m[2])
	}
	for _, name := range slices.Sorted(maps.Keys(code)) {
		labels, ok := table[name]
		if !ok {
			t.Errorf("docs/metrics.md has no row for %s with the labels %s", name, code[name])
		} else if labels != code[name] {
			t.Errorf("docs/metrics.md: %s has the labels %s, the code has %s", name, labels, code[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if _, ok := code[name]; !ok {
			t.Errorf("docs/metrics.md has a row for %s, which the code does not have", name)
		}
	}
	if len(code) < 15 {
		t.Errorf("%d metrics in the code: is this test still reading it?", len(code))
	}
}

// Rules and dashboards with a name that is not there are silent for ever.
func TestRulesAndDashboardUseMetricsThatExist(t *testing.T) {
	code := metricsOf(t)
	for _, file := range []string{"alerts.yaml", "alerts_test.yaml", "dashboard.json"} {
		used := regexp.MustCompile(`\b(?:loden|wireguard)_[a-z_]+\b`).FindAllString(read(t, "deploy/monitoring/"+file), -1)
		if len(used) == 0 {
			t.Errorf("%s uses no metric", file)
		}
		for _, name := range used {
			if _, ok := code[strings.TrimSuffix(name, "_bucket")]; !ok {
				t.Errorf("%s uses %s, which does not exist", file, name)
			}
		}
	}
}
