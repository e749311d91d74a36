#!/bin/sh
# packages.sh: install the Debian packages that the browser test needs besides those
# of the tests, only those whose program is missing. Without root it uses sudo.
set -eu
missing=
command -v chromium >/dev/null || missing="chromium fonts-dejavu-core"
[ -n "$missing" ] || exit 0
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=400"
# shellcheck disable=SC2086 # a list of words
$apt install --no-install-recommends $missing || { $apt update && $apt install --no-install-recommends $missing; }
