// Package image owns the proof that the container image builds where no registry is, and
// that a node run from it, with NET_ADMIN, NET_RAW and /dev/net/tun and nothing more, is a
// node like any other. It needs buildah, debootstrap and runc, and minutes: `make
// image-test` runs it, `make test` does not.
package image
