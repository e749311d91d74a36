package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
)

// figures are measured quantities by name, which ends with the unit. A quantity that a subject
// does not have is absent.
type figures map[string]float64

// quantities are the figures in the order of their printing.
var quantities = []string{
	"start s", "idle CPU ticks", "RSS daemon MB", "RSS engine MB",
	"CPU ms/join", "CPU daemon ms/join", "CPU engine ms/join", "allocated KB/join", "disk KB/join", "disk with exit KB/join",
	"RSS daemon after joins MB", "RSS engine after joins MB",
	"join p50 ms", "join p99 ms", "join missing",
	"restart s", "restart changed peers",
	"burst written s", "burst p50 ms", "burst settled s", "burst missing", "burst CPU s",
}

// result is the figures of a subject beside a number of leases.
type result struct {
	Subject string  `json:"subject"`
	Leases  int     `json:"leases"`
	Figures figures `json:"figures"`
}

type results []result

func (v figures) print(w io.Writer) {
	for _, q := range quantities {
		if value, ok := v[q]; ok {
			fmt.Fprintf(w, "  %-26s %.4g\n", q, value)
		}
	}
}

// subjects returns the names of all subjects in the order of their first result.
func (r results) subjects() (out []string) {
	for _, one := range r {
		if !slices.Contains(out, one.Subject) {
			out = append(out, one.Subject)
		}
	}
	return out
}

// sizes returns the numbers of leases, ascending.
func (r results) sizes() (out []int) {
	for _, one := range r {
		out = append(out, one.Leases)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// of returns a figure.
func (r results) of(subject string, leases int, quantity string) (float64, bool) {
	for _, one := range r {
		if one.Subject == subject && one.Leases == leases {
			v, ok := one.Figures[quantity]
			return v, ok
		}
	}
	return 0, false
}

// print writes a row for each quantity and subject with a column for each size.
func (r results) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprint(t, "\nquantity\tsubject")
	for _, n := range r.sizes() {
		fmt.Fprintf(t, "\t%d", n)
	}
	fmt.Fprintln(t)
	for _, q := range quantities {
		for _, s := range r.subjects() {
			row, any := "", false
			for _, n := range r.sizes() {
				cell := "-"
				if v, ok := r.of(s, n, q); ok {
					cell, any = fmt.Sprintf("%.4g", v), true
				}
				row += "\t" + cell
			}
			if any {
				fmt.Fprintf(t, "%s\t%s%s\n", q, s, row)
			}
		}
	}
	_ = t.Flush() // the destination is a terminal or a file of the shell
}

// save writes results.json.
func (r results) save(dir string) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "results.json"), append(text, '\n'), 0o644)
}
