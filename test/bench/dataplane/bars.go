package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// bar is a wanted ratio of loden's median to another median of the same run.
type bar struct {
	what           string
	test, quantity string
	to             role    // whose; loden's own is compared within the contender
	toTest         string  // the same test when empty
	toQuantity     string  // the same quantity when empty
	limit          float64 // 0: only told
	atMost         bool
}

// bars are the ratios that the engine is to reach.
var bars = []bar{
	{what: "TCP, 1 stream", test: "tcp1", quantity: "Gbit/s", to: rolePlain, limit: 1.6},
	{what: "TCP, 4 streams", test: "tcp4", quantity: "Gbit/s", to: rolePlain, limit: 1.6},
	{what: "CPU s/GB, 1 stream", test: "tcp1", quantity: "CPU s/GB", to: rolePlain, limit: 0.5, atMost: true},
	{what: "CPU s/GB, 4 streams", test: "tcp4", quantity: "CPU s/GB", to: rolePlain, limit: 0.5, atMost: true},
	{what: "UDP, 64 bytes", test: "udp64", quantity: "kpps", to: rolePlain, limit: 3},
	{what: "idle round trip", test: "rtt", quantity: "p50 µs", to: rolePlain, limit: 0.6, atMost: true},
	{what: "idle round trip, back to back", test: "pong", quantity: "p50 µs", to: rolePlain, limit: 0.6, atMost: true},
	{what: "idle round trip, programs", test: "rr", quantity: "p50 µs", to: rolePlain, limit: 0.6, atMost: true},
	{what: "idle round trip, p99", test: "rtt", quantity: "p99 µs", to: rolePlain, atMost: true},
	{what: "round trip under load", test: "load", quantity: "p50 µs", to: rolePlain, limit: 0.3, atMost: true},
	{what: "round trip under load, p99", test: "load", quantity: "p99 µs", to: rolePlain, atMost: true},
	{what: "RSS", test: "rss", quantity: "MB", to: rolePlain, limit: 0.1, atMost: true},
	{what: "IPv6 inside, of its IPv4", test: "tcp1.in6", quantity: "Gbit/s", to: roleLoden, toTest: "tcp1", limit: 0.9},
	{what: "IPv6 outside, of its IPv4", test: "tcp1.out6", quantity: "Gbit/s", to: roleLoden, toTest: "tcp1", limit: 0.9},
	{what: "IPv6 in and out, of its IPv4", test: "tcp1.v6", quantity: "Gbit/s", to: roleLoden, toTest: "tcp1", limit: 0.9},
	{what: "TCP, no UDP GSO on the wire", test: "tcp1.frames", quantity: "Gbit/s", to: rolePlain, limit: 1.5},
	{what: "TCP, 1 stream", test: "tcp1", quantity: "Gbit/s", to: roleNebula, limit: 1.1},
	{what: "TCP, 4 streams", test: "tcp4", quantity: "Gbit/s", to: roleNebula, limit: 1.1},
	{what: "TCP, no UDP GSO on the wire", test: "tcp1.frames", quantity: "Gbit/s", to: roleNebula},
	{what: "UDP, 64 bytes", test: "udp64", quantity: "kpps", to: roleNebula},
	{what: "TCP, 1 stream, of the bound", test: "tcp1", quantity: "Gbit/s", to: roleRaw, toTest: "bound", toQuantity: "Gbit/s"},
}

// verdict is how a bar stands.
type verdict struct {
	ratio, least, most float64 // of the medians, and of single rounds
	rounds             int
	words              string
}

// judge compares a loden contender's median with another contender's.
func (b bar) judge(r *results, loden, other string) verdict {
	test, quantity := b.toTest, b.toQuantity
	if test == "" {
		test = b.test
	}
	if quantity == "" {
		quantity = b.quantity
	}
	mine, theirs := r.kept[key{loden, b.test, b.quantity}], r.kept[key{other, test, quantity}]
	if len(mine) == 0 || len(theirs) == 0 {
		return verdict{words: "not measured"}
	}
	v := verdict{rounds: min(len(mine), len(theirs))}
	v.ratio = median(slices.Collect(maps.Values(mine))) / median(slices.Collect(maps.Values(theirs)))
	v.least, v.most = v.ratio, v.ratio
	for round, value := range mine {
		if base, ok := theirs[round]; ok {
			v.least, v.most = min(v.least, value/base), max(v.most, value/base)
		}
	}
	v.words = b.say(v.ratio)
	return v
}

// say tells whether a ratio reaches the bar, and how much is missing.
func (b bar) say(ratio float64) string {
	switch {
	case b.limit == 0:
		return ""
	case b.atMost && ratio <= b.limit, !b.atMost && ratio >= b.limit:
		return "reached"
	case b.atMost:
		return fmt.Sprintf("MISSED: %.0f %% too much", 100*(ratio/b.limit-1))
	}
	return fmt.Sprintf("MISSED: %.0f %% too little", 100*(1-ratio/b.limit))
}

// wanted is the bar as text.
func (b bar) wanted() string {
	switch {
	case b.limit == 0:
		return ""
	case b.atMost:
		return fmt.Sprintf("≤ %g", b.limit)
	}
	return fmt.Sprintf("≥ %g", b.limit)
}

// printBars writes how each loden contender stands.
func printBars(w io.Writer, r *results, all []contender) {
	present := map[role]string{}
	for _, c := range all {
		present[c.role] = c.name
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "contender\tbar\tto\tratio\trounds' range\trounds\twanted\t")
	for _, c := range all {
		for _, b := range bars {
			if c.role != roleLoden {
				break
			}
			other := present[b.to]
			if b.to == roleLoden {
				other = c.name
			}
			v := b.judge(r, c.name, other)
			if v.rounds == 0 {
				if b.limit != 0 {
					fmt.Fprintf(t, "%s\t%s\t%s\t-\t-\t0\t%s\t%s\n", c.name, b.what, b.to, b.wanted(), v.words)
				}
				continue
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%.2f\t%.2f … %.2f\t%d\t%s\t%s\n", c.name, b.what, b.to, v.ratio, v.least, v.most, v.rounds, b.wanted(), v.words)
		}
	}
	_ = t.Flush()
}
