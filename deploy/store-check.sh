#!/bin/sh
# store-check.sh MANIFEST DIR: start bin/etcd with the flags and the certificates of a rendered
# manifest, and ask it with bin/loden: with the client's certificate, with none, and without TLS.
set -eu
manifest=$1 dir=$2 bin=$(cd "$(dirname "$0")/../bin" && pwd)
mkdir -p "$dir"
# file SECRET NAME: write the decoded member of a secret, which is a word or a block, to DIR/NAME
file() {
	awk -v secret="$1" -v key="$2:" '
		/^---/ {data = ""; name = ""; block = 0}
		block && /^    / {data = data $1; next}
		{block = 0}
		$1 == key {if ($2 == "|") block = 1; else data = $2}
		$1 == "name:" {name = $2}
		name == secret && data != "" {print data; exit}' "$manifest" |
		base64 -d >"$dir/$2"
	test -s "$dir/$2" || { echo "secret $1 has no $2" >&2; exit 1; }
}
file loden-store server.crt
file loden-store server.key
file loden-etcd ca.crt
file loden-etcd client.crt
file loden-etcd client.key
# The manifest's ports and paths, in a directory and on ports of this run.
flags=$(sed -n 's/^ *- \(--[a-z].*\)/\1/p' "$manifest" | grep -E '^--(listen|advertise|client-cert|trusted|cert-file|key-file)' | grep -v listen-address |
	sed "s/ #.*//; s|/etc/store|$dir|; s|\[::\]:22379|127.0.0.1:32379|; s|localhost:22379|127.0.0.1:32379|; s|:22380|:32380|; s|:22381|:32381|")
# shellcheck disable=SC2086
"$bin/etcd" --data-dir "$dir/data" --log-level error $flags --initial-advertise-peer-urls http://127.0.0.1:32380 --initial-cluster default=http://127.0.0.1:32380 &
etcd=$!
trap 'kill $etcd; wait $etcd 2>/dev/null || true' EXIT
printf '{"Network":"10.244.0.0/16"}' >"$dir/network.json"
put() { timeout 20 "$bin/loden" network put --timeout 15s "$dir/network.json" "$@"; }
tls="--etcd-endpoints https://127.0.0.1:32379 --etcd-cafile $dir/ca.crt --etcd-server-name store"
# shellcheck disable=SC2086
put $tls --etcd-certfile "$dir/client.crt" --etcd-keyfile "$dir/client.key" >"$dir/said" 2>&1 || { cat "$dir/said" >&2; exit 1; }
# shellcheck disable=SC2086
for without in "$tls" "--etcd-endpoints http://127.0.0.1:32379"; do
	if timeout 20 "$bin/loden" network get --timeout 3s $without >"$dir/said" 2>&1; then
		echo "etcd answered a client without a certificate: $without" >&2
		exit 1
	fi
done
