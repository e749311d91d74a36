#!/bin/sh
# packages.sh: install the Debian packages that the build and the tests need, only those
# whose program is missing. Without root it uses sudo. It changes nothing else.
set -eu
# program (or file) and the package that brings it
wanted='
iptables iptables
ip6tables iptables
nft nftables
ip iproute2
ping iputils-ping
wg wireguard-tools
sysctl procps
nsenter util-linux
mount mount
gcc gcc
/usr/include/stdlib.h libc6-dev
conntrack conntrack
ethtool ethtool
'
PATH=$PATH:/usr/sbin:/sbin
missing=$(echo "$wanted" | while read -r program package; do
	case $program in
	'') continue ;;
	/*) [ -e "$program" ] && continue ;;
	*) command -v "$program" >/dev/null && continue ;;
	esac
	echo "$package"
done | sort -u | tr '\n' ' ')
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
	echo "packages.sh: install these Debian packages, or what your system calls them: $missing" >&2
	exit 1
fi
sudo=
if [ "$(id -u)" != 0 ]; then sudo=sudo; fi
echo "installing: $missing"
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=400"
# shellcheck disable=SC2086
$apt install --no-install-recommends $missing || { $apt update && $apt install --no-install-recommends $missing; }
