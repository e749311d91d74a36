package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// results collects values by contender and metric.
type results struct {
	maxSteal float64
	kept     map[string]map[string][]float64 // contender → metric → one value per round
	dropped  int
}

func newResults(maxSteal float64) *results {
	return &results{maxSteal: maxSteal, kept: map[string]map[string][]float64{}}
}

// add prints a round and keeps it, unless the hypervisor took too much of it.
func (r *results) add(round int, contender string, v values) {
	dropped := v["steal %"] > r.maxSteal
	for _, metric := range slices.Sorted(maps.Keys(v)) {
		fmt.Printf("%d\t%s\t%s\t%.4g\n", round+1, contender, metric, v[metric])
	}
	if dropped {
		r.dropped++
		fmt.Printf("%d\t%s\tdropped: steal\n", round+1, contender)
		return
	}
	if r.kept[contender] == nil {
		r.kept[contender] = map[string][]float64{}
	}
	for metric, value := range v {
		r.kept[contender][metric] = append(r.kept[contender][metric], value)
	}
}

// print writes medians, and ratios to the base contender.
func (r *results) print(w io.Writer, base string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nmetric\tcontender\trounds\tmedian\tmin\tmax\tratio to %s\n", base)
	metrics := map[string]bool{}
	for _, m := range r.kept {
		for name := range m {
			metrics[name] = true
		}
	}
	for _, metric := range slices.Sorted(maps.Keys(metrics)) {
		for _, contender := range slices.Sorted(maps.Keys(r.kept)) {
			all := r.kept[contender][metric]
			if len(all) == 0 {
				continue
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%.4g\t%.4g\t%.4g\t%.2f\n", metric, contender, len(all),
				median(all), slices.Min(all), slices.Max(all), median(all)/median(r.kept[base][metric]))
		}
	}
	_ = t.Flush()
	fmt.Fprintf(w, "%d rounds dropped for steal above %g %%\n", r.dropped, r.maxSteal)
}

// median of no values is 0.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}
