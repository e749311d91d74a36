#!/bin/sh
# certificates.sh [DIR]: make a certificate authority, and the certificates of Loden's own etcd
# and of its clients, in DIR (default: certificates beside this file) by openssl. Existing files
# stay, so a second run changes nothing: a new authority would lock every node out. The key of the
# authority is not kept.
set -eu
dir=${1:-$(dirname "$0")/certificates}
mkdir -p "$dir"
chmod 700 "$dir"
cd "$dir"
if [ -e ca.crt ]; then
	echo "certificates.sh: $dir has certificates already; remove the directory to make new ones" >&2
	exit 0
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=loden-store \
	-keyout "$tmp/ca.key" -out "$tmp/ca.crt" 2>/dev/null
# sign NAME COMMON-NAME EXTENSIONS
sign() {
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$2" -keyout "$tmp/$1.key" -out "$tmp/$1.csr" 2>/dev/null
	printf '%s\n' "$3" >"$tmp/$1.ext"
	openssl x509 -req -in "$tmp/$1.csr" -CA "$tmp/ca.crt" -CAkey "$tmp/ca.key" -CAcreateserial -days 3650 \
		-extfile "$tmp/$1.ext" -out "$tmp/$1.crt" 2>/dev/null
	mv "$tmp/$1.key" "$tmp/$1.crt" .
}
sign server store 'subjectAltName=DNS:store,DNS:localhost,IP:127.0.0.1,IP:::1
extendedKeyUsage=serverAuth,clientAuth'
sign client loden 'extendedKeyUsage=clientAuth'
mv "$tmp/ca.crt" .
