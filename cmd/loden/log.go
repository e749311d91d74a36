package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config"
)

// logTime is the form of the time in a log: RFC 3339 with milliseconds.
const logTime = "2006-01-02T15:04:05.000Z07:00"

// newLogger returns the logger that the flags ask for, writing to w.
func newLogger(flags *config.Node, w io.Writer) (zerolog.Logger, error) {
	level, err := zerolog.ParseLevel(flags.LogLevel)
	if err != nil {
		return zerolog.Nop(), usageError(fmt.Errorf("--log-level %q: choose one of debug, info, warn, error", flags.LogLevel))
	}
	switch flags.LogFormat {
	case "json":
	case "text":
		w = console(w, terminal(w))
	case "auto":
		if terminal(w) {
			w = console(w, true)
		}
	default:
		return zerolog.Nop(), usageError(fmt.Errorf("--log-format %q: choose one of auto, text, json", flags.LogFormat))
	}
	return zerolog.New(w).Level(level).Hook(zerolog.HookFunc(stamp)), nil
}

// stamp adds the time to an event. zerolog's own time stamp has whole seconds, unless a
// global variable is changed.
func stamp(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(zerolog.TimestampFieldName, time.Now().UTC().Format(logTime))
}

// console returns a writer of lines for people: local time with milliseconds, and the fields
// of a change in the order of a sentence.
func console(w io.Writer, colour bool) io.Writer {
	return zerolog.ConsoleWriter{
		Out: w, NoColor: !colour, TimeFormat: "15:04:05.000", TimeLocation: time.Local,
		FieldsOrder: []string{"node", "part", "verb", "object"},
	}
}

// terminal reports whether w is a terminal.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
