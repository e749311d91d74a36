#!/bin/sh
# packages.sh: install the Debian packages that images and container runtimes need here,
# only those whose program is missing. Without root it uses sudo.
set -eu
PATH=$PATH:/usr/sbin:/sbin
missing=
for program in containerd runc buildah debootstrap busybox qemu-aarch64-static; do
	command -v $program >/dev/null && continue
	case $program in
	busybox) program=busybox-static ;;
	qemu-aarch64-static) program=qemu-user-static ;;
	esac
	missing="$missing $program"
done
[ -n "$missing" ] || exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
$sudo apt-get -o DPkg::Lock::Timeout=400 -q update
# shellcheck disable=SC2086 # a list of words
$sudo apt-get -o DPkg::Lock::Timeout=400 -q install -y --no-install-recommends $missing
