package main

import (
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/network/node"
	"github.com/loden-net/loden/network/probe"
)

// paint colours text for a terminal. The zero value leaves text as it is.
type paint struct{ on bool }

// paintFor returns the paint of a writer: colours for a terminal, unless the variable NO_COLOR
// is set (no-color.org) or TERM is dumb.
func paintFor(w io.Writer) paint {
	return paint{on: terminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func (p paint) as(code, text string) string {
	if !p.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p paint) red(text string) string    { return p.as("31", text) }
func (p paint) yellow(text string) string { return p.as("33", text) }
func (p paint) green(text string) string  { return p.as("32", text) }
func (p paint) bold(text string) string   { return p.as("1", text) }
func (p paint) dim(text string) string    { return p.as("2", text) }

// state colours the state of a path, or a text about it.
func (p paint) state(state, text string) string {
	switch state {
	case probe.Up:
		return p.green(text)
	case probe.Degraded, probe.MTU:
		return p.yellow(text)
	case probe.Down, probe.OneWay:
		return p.red(text)
	}
	return p.dim(text)
}

// verdict colours the state of a finding, or a text about it.
func (p paint) verdict(state node.State, text string) string {
	switch state {
	case node.Good:
		return p.green(text)
	case node.Warn:
		return p.yellow(text)
	case node.Bad:
		return p.red(text)
	}
	return p.dim(text)
}

// defaultWidth is the width of a text that goes to no terminal, in columns.
const defaultWidth = 80

// widthOf returns the columns of the terminal that a writer is.
func widthOf(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col >= 40 {
			return int(size.Col)
		}
	}
	return defaultWidth
}

// wrap breaks text at spaces into lines of at most width columns. Lines after the first are
// indented. A word that is longer than a line keeps a line of its own.
func wrap(text string, width, indent int) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > width:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			column = indent
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

// clip shortens text to n columns.
func clip(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	runes := []rune(text)
	return string(runes[:max(n-1, 0)]) + "…"
}

// grid is a table whose columns are as wide as their widest cell. The last column of a row is
// not padded. Colours do not count for the width.
type grid struct {
	rows [][]cell
}

// cell is a text with its colour.
type cell struct {
	text   string
	colour func(string) string // nil for none
}

func (g *grid) add(cells ...cell) { g.rows = append(g.rows, cells) }

// plain returns cells without colours.
func plain(texts ...string) []cell {
	var out []cell
	for _, t := range texts {
		out = append(out, cell{text: t})
	}
	return out
}

// String returns the rows, each after an indent of two columns.
func (g *grid) String() string {
	var widths []int
	for _, row := range g.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var b strings.Builder
	for _, row := range g.rows {
		var line strings.Builder
		for i, c := range row {
			text := c.text
			if c.colour != nil {
				text = c.colour(text)
			}
			line.WriteString(text)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		b.WriteString("  " + strings.TrimRight(line.String(), " ") + "\n")
	}
	return b.String()
}
