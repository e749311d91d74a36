#!/bin/sh
# run.sh [TEST-PATTERN [RESTARTS]]: the tests of kernel WireGuard, on a machine whose own kernel may have none. It boots Debian's cloud
# kernel in QEMU without any special right or processor feature, and runs the programs of bin/ and three test binaries in it.
# RESTARTS is how often the daemons of a cluster are ended and started under its streams (8).
# Downloads are kept in .cache/kernel. `make build` must have run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=$root/.cache/kernel
pattern=${1:-.}
limit=${KERNEL_TEST_SECONDS:-3300}
GO=${GO:-go}
PATH=$PATH:/usr/sbin:/sbin

[ "$(dpkg --print-architecture)" = amd64 ] || { echo "run.sh: only amd64 so far" >&2; exit 1; }
mkdir -p "$cache"
exec 9>"$cache/lock" && flock 9 # one at a time: they share the guest and the console's log
"$here/packages.sh"

# The kernel: today's, or the one that was fetched before when the archive cannot be asked.
package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends:/ { print $2; exit }')
[ -n "$package" ] || { echo "run.sh: apt knows no linux-image-cloud-amd64: apt-get update" >&2; exit 1; }
version=${package#linux-image-}
tree=$cache/$version
if [ ! -e "$tree/modules.dep.done" ]; then
	rm -rf "$tree" && mkdir -p "$tree"
	(cd "$cache" && rm -f ./*.deb && apt-get -q download "$package")
	dpkg -x "$cache"/linux-image-*.deb "$tree" && rm "$cache"/linux-image-*.deb
	depmod -b "$tree" "$version" && touch "$tree/modules.dep.done"
fi

# What runs inside: static, so that the guest needs no library of Go's.
for p in backend test/kernel test/interop; do
	(cd "$root" && CGO_ENABLED=0 $GO test -c -tags kernel -trimpath -o "$cache/$(basename "$p").test" "./$p")
done
"$here/initramfs.sh" "$root" "$tree" "$version" "$cache/guest.cpio"

# A processor that can run a guest by itself makes this ten times faster; none is needed.
accel='tcg,thread=multi'
if [ -w /dev/kvm ] && grep -qE '\<(vmx|svm)\>' /proc/cpuinfo; then accel=kvm; fi
log=$cache/console.log
echo "booting $version under $accel"
status=0
timeout "$limit" qemu-system-x86_64 -accel "$accel" -cpu max -smp 2 -m 3072 \
	-nographic -no-reboot -nodefaults -serial stdio \
	-kernel "$tree/boot/vmlinuz-$version" -initrd "$cache/guest.cpio" \
	-append "console=ttyS0 panic=-1 quiet log_buf_len=2M loden.tests=$pattern loden.restarts=${2:-8}" </dev/null | stdbuf -oL tr -d '\r' | tee "$log" || status=$?

# The guest has no other way to tell how it went.
grep -q '^GUEST VERDICT: good$' "$log" || { echo "run.sh: the guest did not say that all is good (status $status, console in $log)" >&2; exit 1; }
