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
# need WHAT PATTERN: something that was rendered must look like this
need() {
	if ! grep -qE "$2" "$tmp/out"; then
		echo "$1 was not rendered"
		exit 1
	fi
}
kubernetes/own-etcd/certificates.sh
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
# An IPv6 address to listen on, and a name of the interface, reach every place that needs them.
printf 'etcd: {own: true}\nuserspace: true\ninterface: wg7\nlistenAddress: "[::1]:8081"\n' >"$tmp/values.yaml"
"$kube" chart chart "$tmp/values.yaml" >"$tmp/out"
need 'the probe at ::1' 'host: "::1", port: 8081'
need "the engine's interface" 'args: \[engine, wg7\]'
need "the daemon's interface" 'interface=wg7'
printf 'etcd: {own: true}\nargs: [--interface=wg7]\n' >"$tmp/values.yaml"
if "$kube" chart chart "$tmp/values.yaml" 2>"$tmp/said" >/dev/null || ! grep -q 'args has --interface=wg7' "$tmp/said"; then
	echo "a chart whose engine has another interface than its daemon was rendered"
	exit 1
fi
# What a chart of an operator's own values must say, and must refuse.
"$kube" chart chart chart/ci/monitored.yaml >"$tmp/out"
need 'the label of the namespace' 'pod-security.kubernetes.io/enforce: privileged'
need 'the own etcd of an IPv6-only cluster' 'https://\[\$\(STORE_SERVICE_HOST\)\]'
need 'the probe of all addresses' 'host: "::1", port: 8081'
need 'the scraped address' 'replacement: .\[\$1\]:8081'
need 'the pull secret' 'name: my-registry'
need 'the extra environment' 'name: LODEN_LOG_LEVEL'
"$kube" chart chart chart/ci/uninstall.yaml >"$tmp/out"
need 'the removal from every node' '^        - down$'
refuse 'a daemon beside the removal' '^        - run$'
# no VALUES PATTERN: a chart with these values is refused with this complaint
no() {
	printf '%s\n' "$1" >"$tmp/values.yaml"
	if "$kube" chart chart "$tmp/values.yaml" 2>"$tmp/said" >/dev/null || ! grep -q "$2" "$tmp/said"; then
		echo "a chart with $1 was rendered, or refused without \"$2\":"
		cat "$tmp/said"
		exit 1
	fi
}
no 'etcd: {own: true}
podMonitor: {enabled: true}' 'does not reach loopback'
no 'etcd: {own: true}
listenAdress: "[::1]:8081"' 'listenAdress'
no 'etcd: {endpoints: ["192.0.2.1:2379"]}' 'etcd.endpoints'
no 'etcd: {own: true, ownFamily: ipv6}' 'ownFamily'
# Loden's own etcd: the rendered flags and certificates, with a real etcd, a client with the
# certificate, and clients without.
for way in kustomize chart; do
	if [ $way = kustomize ]; then "$kube" kustomize kubernetes/own-etcd >"$tmp/out"; else "$kube" chart chart chart/ci/own-etcd.yaml >"$tmp/out"; fi
	refuse 'an etcd without TLS' 'http://(\[::\]|\$\(STORE)'
	port=$(sed -n 's/.*--listen-client-urls=.*:\([0-9]*\)$/\1/p' "$tmp/out")
	# A service is seen by the guard before its translation: it has the port of the node.
	need "the etcd's port $port as the service's" "(port: $port}|port: $port\$)"
	need "the etcd's port $port as closed to pods" "LODEN_GUARD_PORTS.*\"$port\"|value: \"$port\""
	./store-check.sh "$tmp/out" "$tmp/$way"
	echo "own etcd by $way: served the certificate, refused clients without"
done
if "$kube" chart chart 2>"$tmp/said" >/dev/null || ! grep -q 'say where etcd is' "$tmp/said"; then
	echo "a chart without etcd was rendered"
	exit 1
fi
# Alert rules and their tests, and the dashboard's queries as rules; promtool is in Debian's package prometheus.
if command -v promtool >/dev/null; then
	(cd monitoring && promtool check rules alerts.yaml && promtool test rules alerts_test.yaml) >"$tmp/said" || { cat "$tmp/said"; exit 1; }
	{
		printf 'groups:\n- name: dashboard\n  rules:\n'
		sed -n 's/^ *"expr": \(".*"\),\{0,1\}$/  - {record: "panel", expr: \1}/p' monitoring/dashboard.json | sed 's/\$instance/.*/g' | awk '{sub(/"panel"/, "\"panel_" NR "\""); print}'
	} >"$tmp/panels.yaml"
	promtool check rules "$tmp/panels.yaml" >"$tmp/said" || { cat "$tmp/said" "$tmp/panels.yaml"; exit 1; }
	echo "monitoring: $(grep -c 'alert:' monitoring/alerts.yaml) alert rules with tests, $(grep -c record: "$tmp/panels.yaml") queries of the dashboard"
else
	echo "monitoring: not checked, there is no promtool (apt-get install prometheus)"
fi
systemd/check.sh
