#!/bin/sh
# build.sh [TAG]: build the image with buildah, without root's powers in the build
# (--isolation chroot), from the registry's bases. ARCH is the image's architecture, amd64
# or arm64 (default: this machine's). With LODEN_OFFLINE=1 the bases come from
# this machine: a Debian by debootstrap (kept in .cache/image) and the Go that is installed.
# It prints the tag. Other builders: the Dockerfile's arguments BASE and GOLANG.
set -eu
cd "$(dirname "$0")/../.."
tag=${1:-localhost/loden:latest}
version=${VERSION:-$(git describe --tags --always --dirty 2>/dev/null || echo dev)}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
arch=${ARCH:-$(go env GOARCH)}
set -- --platform "linux/$arch" --build-arg TARGETARCH="$arch" --build-arg BUILDPLATFORM="linux/$(go env GOHOSTARCH)" --build-arg VERSION="$version" --build-arg REVISION="$revision"
if [ -n "${LODEN_OFFLINE:-}" ]; then
	root=$PWD/.cache/image/$arch
	if [ ! -e "$root/etc/loden" ]; then
		mkdir -p "$root"
		debootstrap --variant=minbase --include=netbase,ca-certificates,binutils bookworm "$root" >&2
		cp deploy/image/install.sh "$root/root/"
		chroot "$root" sh /root/install.sh "$arch" >&2
		touch "$root/etc/loden" # it is whole
	fi
	# image NAME FROM TO: an image of one directory
	image() {
		c=$(buildah from scratch)
		buildah add -q "$c" "$2" "$3" >/dev/null
		buildah commit -q --rm "$c" "$1" >/dev/null
	}
	buildah inspect "localhost/loden-base-$arch" >/dev/null 2>&1 || image "localhost/loden-base-$arch" "$root" /
	buildah inspect localhost/loden-golang >/dev/null 2>&1 || image localhost/loden-golang "$(go env GOROOT)" /usr/local/go
	modules=$(go env GOMODCACHE)
	set -- "$@" --build-arg BASE="localhost/loden-base-$arch" --build-arg GOLANG=localhost/loden-golang \
		--build-arg GOPROXY=off --volume "$modules:/root/go/pkg/mod:ro" \
		--volume "$(go env GOCACHE):/root/.cache/go-build"
fi
old=$(buildah images -q "$tag" 2>/dev/null || true)
buildah bud -q --isolation chroot --format docker --layers=false --force-rm "$@" -t "$tag" . >&2
# A stage that is only copied from (golang) keeps its container all the same.
buildah containers --format '{{.ContainerID}} {{.ImageName}}' | awk '$2 ~ /loden-golang/ {print $1}' | xargs -r buildah rm >/dev/null
if [ -n "$old" ] && [ "$old" != "$(buildah images -q "$tag")" ]; then
	buildah rmi "$old" >/dev/null
fi
echo "$tag"
