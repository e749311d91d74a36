package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// printJSON writes v for people and programs.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// versioned is the start of every JSON object that a command prints: docs/json.md.
type versioned struct {
	APIVersion int `json:"apiVersion"` // 1; a change that breaks readers raises it
}

func version1() versioned { return versioned{APIVersion: 1} }

// printError prints the error of a command that was to print JSON, as an object.
func printError(w io.Writer, text string, status int) error {
	return printJSON(w, struct {
		versioned
		Error      string `json:"error"`
		ExitStatus int    `json:"exitStatus"`
	}{version1(), text, status})
}

// join prints the families that are present.
func join[T any](d opt.Dual[T]) string {
	var parts []string
	for _, v := range d.All() {
		parts = append(parts, fmt.Sprint(v))
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, " ")
}

// ago prints how long ago t was, or "never" for the zero time.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return span(now.Sub(t)) + " ago"
}

// span prints a duration in whole seconds.
func span(d time.Duration) string { return d.Round(time.Second).String() }

// size prints a number of bytes.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for ; f >= unit && i < 4; i++ {
		f /= unit
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[i])
}
