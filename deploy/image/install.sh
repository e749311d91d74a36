#!/bin/sh
# install.sh ARCH: install what collect.sh copies from, for amd64 or arm64, on a Debian of
# any architecture (multiarch: no program of the other architecture is run). It does nothing
# where that is there already.
set -eu
arch=$1
case $arch in
amd64) triplet=x86_64-linux-gnu ;;
arm64) triplet=aarch64-linux-gnu ;;
*) echo "install.sh: no architecture $arch" >&2 && exit 1 ;;
esac
if [ ! -e "/usr/lib/$triplet/xtables" ] || [ ! -e /usr/bin/readelf ]; then
	dpkg --add-architecture "$arch"
	apt-get update
	apt-get install -y --no-install-recommends "iptables:$arch" "nftables:$arch" netbase ca-certificates binutils
fi
