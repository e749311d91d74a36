#!/bin/sh
# build.sh DIR: build the pinned reference plugins, static, into DIR (default bin/cni).
# cnitool, which tests use by hand, goes beside DIR only when asked: build.sh DIR cnitool.
set -eu
dir=${1:-$(dirname "$0")/../../../bin/cni}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
cd "$(dirname "$0")"
plugins=github.com/containernetworking/plugins/plugins
build() { CGO_ENABLED=0 GOWORK=off go build -trimpath -ldflags="-s -w" "$@"; }
build -o "$dir/" $plugins/main/bridge $plugins/main/loopback $plugins/ipam/host-local $plugins/meta/portmap
if [ "${2:-}" = cnitool ]; then
	build -o "$dir/" github.com/containernetworking/cni/cnitool
fi
