#!/bin/sh
# build.sh DIR [PROGRAM...]: build the pinned Kubernetes, static, into DIR (default
# bin/k8s). Cold it takes a quarter of an hour of one core; the Go cache keeps the parts.
set -eu
dir=${1:-$(dirname "$0")/../../../bin/k8s}
[ $# = 0 ] || shift
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
cd "$(dirname "$0")"
version=$(GOWORK=off go list -m -f '{{.Version}}' k8s.io/kubernetes)
minor=${version#v1.}
# What the programs say of themselves; clients and kubelets compare it.
stamp=k8s.io/component-base/version
ldflags="-s -w -X $stamp.gitVersion=$version -X $stamp.gitMajor=1 -X $stamp.gitMinor=${minor%%.*} -X $stamp.gitTreeState=clean"
[ $# != 0 ] || set -- kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet
for program; do
	CGO_ENABLED=0 GOWORK=off go build -trimpath -ldflags="$ldflags" -o "$dir/$program" "k8s.io/kubernetes/cmd/$program"
done
