#!/bin/sh
# check.sh: render and check everything below deploy/ that a cluster or systemd would read.
set -eu
cd "$(dirname "$0")"
kube=$PWD/../.cache/test/kube
(cd ../test/tools/kube && GOWORK=off CGO_ENABLED=0 go build -o "$kube" .)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
# refuse WHAT PATTERN: nothing that was rendered may look like this
refuse() {
	if grep -nE "$2" "$tmp/out"; then
		echo "$1 was rendered"
		exit 1
	fi
}
for dir in kubernetes/base kubernetes/example kubernetes/own-etcd; do
	echo "kustomize $dir"
	"$kube" kustomize $dir >"$tmp/out"
	refuse 'a privileged container' 'privileged: true'
	refuse 'an image of no registry' 'image: [^/]*$'
	if [ "$(grep -c '^kind: ' "$tmp/out")" != "$(grep -cE '^(  namespace: loden-system|kind: Namespace)$' "$tmp/out")" ]; then
		echo "an object outside the namespace was rendered"
		exit 1
	fi
done
for values in chart/ci/*.yaml; do
	echo "chart $values"
	"$kube" chart chart "$values" >"$tmp/out"
	refuse 'a privileged container' 'privileged: true'
	refuse 'an image of no registry' 'image: [^/]*$'
done
if "$kube" chart chart 2>"$tmp/said" >/dev/null || ! grep -q 'say where etcd is' "$tmp/said"; then
	echo "a chart without etcd was rendered"
	exit 1
fi
systemd/check.sh
