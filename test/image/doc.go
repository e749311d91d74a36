// Package image owns the proof that the container image builds where no registry is, and
// that a node run from it, with NET_ADMIN, NET_RAW and /dev/net/tun and nothing more, is a
// node like any other; and that the image for arm64 is built on any machine, is arm64's to
// the last library, and starts under QEMU. It needs buildah, debootstrap, runc and
// qemu-user-static, and minutes: `make image-test` runs it, `make test` does not.
package image
