package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// results are the good values by contender, test and quantity.
type results struct {
	kept            map[key]map[int]float64 // round → value
	rounds          map[key]int             // without quantity: good rounds of a test
	dropped, failed int                     // attempts
}

type key struct{ contender, test, quantity string }

func newResults() *results {
	return &results{kept: map[key]map[int]float64{}, rounds: map[key]int{}}
}

// good returns how many good rounds a test has.
func (r *results) good(contender, test string) int { return r.rounds[key{contender, test, ""}] }

func (r *results) add(round int, contender, test string, v values) {
	r.rounds[key{contender, test, ""}]++
	for quantity, value := range v {
		k := key{contender, test, quantity}
		if r.kept[k] == nil {
			r.kept[k] = map[int]float64{}
		}
		r.kept[k][round] = value
	}
}

// line is the result of an attempt.
func line(round int, j job, v values, steal float64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%2d  %-12s %-12s steal %4.1f %%", round+1, j.test.name, j.name, steal)
	for _, quantity := range slices.Sorted(maps.Keys(v)) {
		fmt.Fprintf(&b, "  %s %.4g", quantity, v[quantity])
	}
	return b.String()
}

// print writes medians, and ratios to the first contender that has the same.
func (r *results) print(w io.Writer, all []contender) {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "test\tquantity\tcontender\trounds\tmedian\tmin\tmax\tratio")
	type row struct{ test, quantity string }
	rows := map[row]bool{}
	for k := range r.kept {
		rows[row{k.test, k.quantity}] = true
	}
	order := func(a, b row) int { return strings.Compare(a.test+"\t"+a.quantity, b.test+"\t"+b.quantity) }
	for _, is := range slices.SortedFunc(maps.Keys(rows), order) {
		var base float64
		for _, c := range all {
			v := slices.Collect(maps.Values(r.kept[key{c.name, is.test, is.quantity}]))
			if len(v) == 0 {
				continue
			}
			if base == 0 {
				base = median(v)
			}
			ratio := ""
			if base != 0 {
				ratio = fmt.Sprintf("%.2f", median(v)/base)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%.4g\t%.4g\t%.4g\t%s\n", is.test, is.quantity, c.name, len(v),
				median(v), slices.Min(v), slices.Max(v), ratio)
		}
	}
	_ = t.Flush()
	fmt.Fprintf(w, "%d attempts dropped for steal, %d failed\n", r.dropped, r.failed)
}

// median of no values is 0.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
