#!/usr/bin/dash
# guest.sh: the first process of the guest. It runs the tests and says how they went on the console.
export PATH=/usr/bin:/usr/sbin HOME=/root LODEN_BIN=/work/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /dev/pts /run/netns
pattern=$(sed -n 's/.*loden.tests=\([^ ]*\).*/\1/p' /proc/cmdline)
restarts=$(sed -n 's/.*loden.restarts=\([0-9]*\).*/\1/p' /proc/cmdline)
mount -t tracefs tracefs /sys/kernel/tracing # where the kernel says why it drops a packet
read -r up _ </proc/uptime
echo "GUEST up after $up s: Linux $(uname -r)"
ip link set lo up
modprobe -a tun nf_conntrack nf_tables # what a host with rules has; WireGuard is for Loden to ask for
verdict=good
tests() {
	cd "$1" || verdict=bad
	program=$2 run=$3
	shift 3
	"./$program" -test.v -test.timeout 50m -test.run "$run" "$@" || verdict=bad
	read -r up _ </proc/uptime
	echo "GUEST $program done after $up s"
}
tests /work/backend backend.test "^TestKernel.*$pattern"
tests /work/test/kernel kernel.test "$pattern" -restarts "${restarts:-8}"
export LODEN_INTEROP_WITH=kernel
tests /work/test/interop interop.test "$pattern" -test.parallel 4 -rekey
echo "GUEST VERDICT: $verdict"
poweroff -f
