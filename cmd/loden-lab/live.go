package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/test/lab"
)

// The colours of the live table: SGR sequences of ECMA-48.
const (
	green, red, plain = "\x1b[32m", "\x1b[31;1m", "\x1b[0m"
	liveCell          = 10 // characters of a column
	liveRows          = 24 // of a terminal that does not tell its size
)

// terminal returns the number of rows of a terminal, or false when the file is no terminal.
func terminal(f *os.File) (rows int, ok bool) {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	if size.Row == 0 {
		return liveRows, true
	}
	return int(size.Row), true
}

// live draws the table of echoes again and again in place until ctx is done. rows is the height of
// the terminal.
func live(ctx context.Context, l *lab.Lab, w io.Writer, rows func() int) error {
	drawn := 0
	return l.Live(ctx, func(paths []lab.LivePath) {
		lines := liveLines(l, paths, time.Now(), l.Wire.Counts()[lab.Clear]+l.Uplink.Counts()[lab.Clear])
		if most := max(4, rows()-1); len(lines) > most {
			lines = append(lines[:most-1], fmt.Sprintf("  … and %d more lines: make the terminal larger", len(lines)-most+1))
		}
		var b strings.Builder
		if drawn > 0 {
			fmt.Fprintf(&b, "\x1b[%dA", drawn) // cursor up
		}
		b.WriteString("\r\x1b[J") // erase the table before
		for _, line := range lines {
			b.WriteString(line + "\n")
		}
		drawn = len(lines)
		_, _ = io.WriteString(w, b.String()) // a terminal that has gone shows no table
	})
}

// liveLines returns the lines of the live table.
func liveLines(l *lab.Lab, paths []lab.LivePath, now time.Time, clear int) []string {
	down := count(paths, lab.LivePath.Down)
	state := green + "all paths answer" + plain
	if down > 0 {
		state = fmt.Sprintf("%s%d of %d paths do not answer%s", red, down, len(paths), plain)
	}
	lines := []string{fmt.Sprintf("live %s: %s; pod traffic in clear on the wires: %d frames", now.Format(time.TimeOnly), state, clear)}
	if len(l.Nodes) > tableNodes {
		return append(lines, liveSummary(paths, now)...)
	}
	for _, f := range l.Families.List() {
		title := fmt.Sprintf("  %-*s", liveCell, f)
		for _, n := range l.Nodes {
			title += fmt.Sprintf("%-*s", liveCell, n.Name)
		}
		lines = append(lines, "", title)
		for _, from := range l.Nodes {
			line := fmt.Sprintf("  %-*s", liveCell, from.Name)
			for _, to := range l.Nodes {
				text, colour := "-", ""
				for _, p := range paths {
					if p.From == from.Name && p.To == to.Name && p.Family == f.String() {
						text, colour = liveText(p, now)
					}
				}
				line += fmt.Sprintf("%s%-*s%s", colour, liveCell, text, plain)
			}
			lines = append(lines, line)
		}
	}
	return lines
}

// liveText returns the cell of a path and its colour.
func liveText(p lab.LivePath, now time.Time) (text, colour string) {
	switch {
	case p.Down():
		return fmt.Sprintf("DOWN %.0f s", now.Sub(p.Since).Seconds()), red
	case p.Latency == 0:
		return "…", ""
	}
	return milliseconds(p.Latency), green
}

// liveSummary names the nodes at whose ends paths are down, the worst first.
func liveSummary(paths []lab.LivePath, now time.Time) (lines []string) {
	type end struct {
		name      string
		down, all int
		since     time.Time
	}
	ends := map[string]*end{}
	for _, p := range paths {
		for _, name := range []string{p.From, p.To} {
			e := ends[name]
			if e == nil {
				e = &end{name: name}
				ends[name] = e
			}
			if e.all++; p.Down() {
				e.down++
				if e.since.IsZero() || p.Since.Before(e.since) {
					e.since = p.Since
				}
			}
		}
	}
	var bad []*end
	for _, e := range ends {
		if e.down > 0 {
			bad = append(bad, e)
		}
	}
	slices.SortFunc(bad, func(a, b *end) int { return cmp.Or(b.down-a.down, cmp.Compare(a.name, b.name)) })
	for _, e := range bad {
		lines = append(lines, fmt.Sprintf("  %s%s: %d of %d paths DOWN, the first for %.0f s%s", red, e.name, e.down, e.all, now.Sub(e.since).Seconds(), plain))
	}
	return lines
}
