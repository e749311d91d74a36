package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// FromEnvironment fills every flag of fs that the command line did not set from
// LODEN_<NAME>, upper case with '-' as '_'. An empty variable counts as absent. Unlike
// flannel, a value that cannot be read is an error, not a log line.
func FromEnvironment(fs *pflag.FlagSet, lookup func(string) (string, bool)) error {
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		name := EnvName(f.Name)
		value, ok := lookup(name)
		if f.Changed || !ok || value == "" {
			return
		}
		if err := fs.Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	})
	return errors.Join(errs...)
}

// EnvName returns the environment variable of a flag.
func EnvName(flag string) string {
	return "LODEN_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// RecordFlags returns the value of every flag of fs that differs from its default, as a
// JSON object of lists of text. Secrets are left out. FromRecord reads it.
func RecordFlags(fs *pflag.FlagSet) ([]byte, error) {
	record := map[string][]string{}
	fs.VisitAll(func(f *pflag.Flag) {
		if _, secret := f.Value.(*Secret); secret || f.Value.String() == f.DefValue {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			record[f.Name] = list.GetSlice()
			return
		}
		record[f.Name] = []string{f.Value.String()}
	})
	return json.MarshalIndent(record, "", "  ")
}

// FromRecord fills every flag of fs that was not set yet from a record of RecordFlags. A
// flag that fs does not have is skipped, since another version may have written the record;
// a value that cannot be read is an error that names the flag.
func FromRecord(fs *pflag.FlagSet, data []byte) error {
	var record map[string][]string
	if err := json.Unmarshal(data, &record); err != nil {
		return fmt.Errorf("read recorded settings: %w", err)
	}
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		values, ok := record[f.Name]
		if _, secret := f.Value.(*Secret); f.Changed || !ok || secret {
			return
		}
		if err := setAll(f, values); err != nil {
			errs = append(errs, fmt.Errorf("recorded value of --%s: %w", f.Name, err))
		}
	})
	return errors.Join(errs...)
}

// setAll sets a flag to one value, or a flag of the list kind to all of them.
func setAll(f *pflag.Flag, values []string) error {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.Replace(values)
	}
	if len(values) != 1 {
		return fmt.Errorf("it has %d values, and the flag takes one", len(values))
	}
	return f.Value.Set(values[0])
}
