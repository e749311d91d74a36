#!/bin/sh
# packages.sh: install the Debian packages that the Kubernetes test needs here beside those
# of the other tests, only those whose program is missing. containerd is not among them: it is
# built, for Debian 12's does not ask a plugin for its STATUS, and kubelet 1.37 refuses it.
set -eu
PATH=$PATH:/usr/sbin:/sbin
missing=
for pair in runc:runc buildah:buildah debootstrap:debootstrap busybox:busybox-static unshare:util-linux; do
	command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get -o DPkg::Lock::Timeout=400 -q update
# shellcheck disable=SC2086 # a list of words
$sudo apt-get -o DPkg::Lock::Timeout=400 -q install -y --no-install-recommends $missing
