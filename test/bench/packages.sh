#!/bin/sh
# packages.sh: install the Debian packages that measuring the data plane needs besides those
# of the tests, only those whose program is missing. Without root it uses sudo.
set -eu
missing=
command -v iperf3 >/dev/null || missing="$missing iperf3"
command -v perf >/dev/null || missing="$missing linux-perf"
command -v ss >/dev/null || missing="$missing iproute2"
[ -n "$missing" ] || exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=400"
# shellcheck disable=SC2086 # a list of words
$apt install --no-install-recommends $missing || { $apt update && $apt install --no-install-recommends $missing; }
