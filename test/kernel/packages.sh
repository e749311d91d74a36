#!/bin/sh
# packages.sh: install the Debian packages that run.sh needs, only those whose program is missing.
set -eu
PATH=$PATH:/usr/sbin:/sbin
missing=
for pair in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio depmod:kmod dash:dash \
	ip:iproute2 ping:iputils-ping wg:wireguard-tools iptables-nft:iptables nft:nftables nsenter:util-linux; do
	command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ -e /usr/share/seabios/bios-256k.bin ] || missing="$missing seabios"
[ -n "$missing" ] || exit 0
sudo=
if [ "$(id -u)" != 0 ]; then sudo=sudo; fi
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=400"
# shellcheck disable=SC2086
$apt install --no-install-recommends $missing || { $apt update && $apt install --no-install-recommends $missing; }
