#!/bin/sh
# build.sh DIR: build the pinned containerd, its shim and ctr, static, into DIR (default
# bin/containerd).
set -eu
dir=${1:-$(dirname "$0")/../../../bin/containerd}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
cd "$(dirname "$0")"
CGO_ENABLED=0 GOWORK=off go build -trimpath -ldflags='-s -w' -o "$dir/" github.com/containerd/containerd/v2/cmd/containerd \
	github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/ctr
