#!/bin/sh
# collect.sh DIR ARCH: copy iptables (both variants), ip6tables and nft of one architecture
# (install.sh brought them) with all they load from this Debian system into DIR, ready to be
# the root of an image. It runs in the image's build. DIR/usr/share/loden/packages lists the
# Debian packages that the files came from.
set -eu
dir=$1
case $2 in
amd64) triplet=x86_64-linux-gnu ;;
arm64) triplet=aarch64-linux-gnu ;;
esac
mkdir -p "$dir/usr/sbin" "$dir/usr/bin" "$dir/usr/lib" "$dir/usr/lib64" "$dir/usr/share/loden" "$dir/etc/ssl/certs" \
	"$dir/run" "$dir/tmp" "$dir/var/lib" "$dir/proc" "$dir/sys" "$dir/dev"
ln -sfn usr/bin "$dir/bin"
ln -sfn usr/sbin "$dir/sbin"
ln -sfn usr/lib "$dir/lib"
ln -sfn usr/lib64 "$dir/lib64"
ln -sfn /run "$dir/var/run"

# place FILE: copy one file to where it really is, note it, and keep the name it is asked
# for by (several of iptables' modules are links to others)
place() {
	real=$(readlink -f "$1")
	if [ ! -e "$dir$real" ]; then
		mkdir -p "$dir$(dirname "$real")"
		cp -p "$real" "$dir$real"
		echo "$real" >>"$dir/files"
	fi
	name=$(readlink -f "$(dirname "$1")")/$(basename "$1")
	[ "$name" = "$real" ] || ln -sf "$real" "$dir$name"
}

# needs FILE: the loader and the libraries that a program or library names. (ldd would run
# it, which only its own architecture can.)
needs() {
	readelf -ld "$1" 2>/dev/null | sed -n "
		s/.*program interpreter: \(.*\)]/\1/p
		s,.*(NEEDED).*\[\(ld-.*\)],/usr/lib/$triplet/\1,p
		s,.*(NEEDED).*\[\(lib.*\)],/usr/lib/$triplet/\1,p"
}

# copy FILE...: with their directories and, for programs and libraries, what they load
copy() {
	for file in "$@"; do
		known=$dir$(readlink -f "$file")
		[ -e "$known" ] && known=yes
		place "$file"
		if [ "$known" != yes ]; then
			# shellcheck disable=SC2046
			copy $(needs "$file")
		fi
	done
}

copy /usr/sbin/xtables-nft-multi /usr/sbin/xtables-legacy-multi /usr/sbin/nft /etc/protocols
copy "/usr/lib/$triplet/xtables"/*.so
for family in iptables ip6tables; do
	for verb in '' -save -restore; do
		ln -sf xtables-nft-multi "$dir/usr/sbin/$family-nft$verb"
		ln -sf xtables-legacy-multi "$dir/usr/sbin/$family-legacy$verb"
		ln -sf xtables-nft-multi "$dir/usr/sbin/$family$verb"
	done
done
cp /etc/ssl/certs/ca-certificates.crt "$dir/etc/ssl/certs/"

echo /etc/ssl/certs/ca-certificates.crt >>"$dir/files"
while read -r file; do
	# a merged /usr: dpkg knows some files by the path before the merge
	dpkg-query -S "$file" "${file#/usr}" 2>/dev/null || true
done <"$dir/files" | sed -n 's/^\([^ ]*\): .*/\1/p' | tr ',' '\n' | sort -u >"$dir/owners"
echo ca-certificates >>"$dir/owners"
sort -u "$dir/owners" | xargs dpkg-query -W -f '${Package} ${Version} ${Architecture}\n' >"$dir/usr/share/loden/packages"
rm "$dir/files" "$dir/owners"
