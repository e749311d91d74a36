#!/bin/sh
# deadcode.sh DEADCODE: fails on functions that neither a program nor a test reaches, and on
# functions of the product that only tests reach (fakes aside, which ship for tests) and test/tools/lint/tested-only.txt does not
# list. It names lines of that list that are no longer needed.
set -eu
cd "$(dirname "$0")/../.."
list=test/tools/lint/tested-only.txt
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
bad=0

"$1" -test -tags 'kernel image e2e k8s' ./... >"$out/all"
sed '/unreachable func: Example/d' "$out/all" >"$out/dead"
if [ -s "$out/dead" ]; then
	echo 'neither a program nor a test reaches these functions; remove them:' >&2
	cat "$out/dead" >&2
	bad=1
fi

"$1" -f '{{range .Funcs}}{{println $.Path .Name .Position.File}}{{end}}' ./cmd/... >"$out/functions"
sed -n 's|^github.com/loden-net/loden/\([^ ]*\) \([^ ]*\) \(.*\)|\1 \2 \3|p' "$out/functions" |
	grep -Ev '^test/|^[^ ]*test |/fake[a-z_]*\.go$' | cut -d' ' -f1,2 | sort -u >"$out/tested"
sed -n 's/^\([^# ][^ ]* [^ :]*\).*/\1/p' "$list" | sort -u >"$out/listed"
comm -23 "$out/tested" "$out/listed" >"$out/new"
comm -13 "$out/tested" "$out/listed" >"$out/stale"
if [ -s "$out/new" ]; then
	echo "no program reaches these functions; remove them, or list them in $list with a reason:" >&2
	cat "$out/new" >&2
	bad=1
fi
if [ -s "$out/stale" ]; then
	echo "remove these lines from $list, a program reaches the functions or they are gone:" >&2
	cat "$out/stale" >&2
fi
exit $bad
