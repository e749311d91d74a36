#!/bin/sh
# initramfs.sh REPOSITORY KERNEL-TREE VERSION OUTPUT: pack the guest: this machine's own tools with their libraries, the
# kernel's modules that are used, the programs of bin/ and the tests. The archive is not compressed: unpacking it without
# hardware help would take longer than reading it.
set -eu
root=$1 tree=$2 version=$3 output=$4
PATH=$PATH:/usr/sbin:/sbin
guest=$(mktemp -d)
trap 'rm -rf "$guest"' EXIT
cd "$guest"
mkdir -p usr/bin usr/sbin usr/lib64 usr/lib/x86_64-linux-gnu proc sys dev run tmp root etc opt var/lib var/tmp work
for link in bin sbin lib lib64; do ln -s usr/$link $link; done
ln -s /run var/run
printf 'root:x:0:0::/root:/bin/sh\n' >etc/passwd
printf '127.0.0.1 localhost\n' >etc/hosts

# add PROGRAM: the program at its path, the file behind its links, and its libraries.
add() {
	path=$(command -v "$1") || { echo "initramfs.sh: $1 is missing" >&2; exit 1; }
	real=$(readlink -f "$path")
	mkdir -p ".$(dirname "$path")" ".$(dirname "$real")"
	cp -f "$real" ".$real"
	[ "$path" = "$real" ] || ln -sf "$real" ".$path"
	ldd "$real" 2>/dev/null | grep -oE '/[^ ]+\.so[^ ]*' | while read -r lib; do
		mkdir -p ".$(dirname "$lib")"
		[ -e ".$lib" ] || cp -L "$lib" ".$lib"
	done
}
for program in busybox dash ip tc bridge ping wg nft modprobe nsenter unshare mount umount sysctl ss pgrep \
	iptables-nft iptables-nft-save iptables-nft-restore ip6tables-nft ip6tables-nft-save ip6tables-nft-restore \
	iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore \
	iptables-legacy iptables-legacy-save iptables-legacy-restore ip6tables-legacy ip6tables-legacy-save ip6tables-legacy-restore; do
	add "$program"
done
cp -r /usr/lib/x86_64-linux-gnu/xtables usr/lib/x86_64-linux-gnu/
ln -sf dash usr/bin/sh
for applet in $(busybox --list); do # what is not there for real
	[ -e usr/bin/"$applet" ] || [ -e usr/sbin/"$applet" ] || ln -s busybox usr/bin/"$applet"
done

for module in wireguard tun veth bridge overlay dummy af_packet iptable_nat ip6table_nat iptable_filter ip6table_filter \
	xt_MASQUERADE xt_nat xt_comment xt_conntrack xt_tcpudp xt_mark xt_statistic xt_addrtype xt_set xt_multiport xt_NFQUEUE nfnetlink_queue ip_set_hash_net \
	nft_masq nft_ct nft_nat nft_chain_nat nft_compat nft_reject_inet nft_limit nft_log nft_fib_inet nft_counter nf_conntrack_netlink sch_netem; do
	for file in $(modprobe -d "$tree" -S "$version" --show-depends "$module" 2>/dev/null | awk '/^insmod/ { print $2 }'); do
		to=usr/lib/modules/$version/${file#*lib/modules/"$version"/}
		mkdir -p "$(dirname "$to")"
		cp -n "$file" "$to"
	done
done
cp "$tree/lib/modules/$version"/modules.order "$tree/lib/modules/$version"/modules.builtin* usr/lib/modules/"$version"/
depmod -b "$guest" "$version"

mkdir -p work/bin
for program in loden loden-cni loden-lab cni etcd etcdctl; do # bin may hold a whole Kubernetes beside them
	cp -r "$root/bin/$program" work/bin/
done
mkdir -p work/test/kernel work/test/interop work/backend
cp "$root/.cache/kernel/backend.test" work/backend/
cp "$root/.cache/kernel/kernel.test" work/test/kernel/
cp "$root/.cache/kernel/interop.test" work/test/interop/
cp "$root/test/kernel/guest.sh" init
chmod +x init
find . | cpio --quiet -o -H newc >"$output"
