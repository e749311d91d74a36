#!/bin/sh
# fuzz.sh TIME: run every fuzz target of the module for TIME, one after the other.
set -eu
go=${GO:-go}
time=${1:-30s}
"$go" list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r package dir; do
	cat "$dir"/*_test.go 2>/dev/null | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' | while read -r target; do
		echo "== $package $target"
		"$go" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package" </dev/null
	done
done
