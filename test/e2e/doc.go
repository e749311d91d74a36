// Package e2e owns the proof that a container runtime is served for real: two nodes, each
// with a containerd of its own, pods made through CRI as kubelet does. It needs containerd,
// runc and buildah: `make e2e-cri` runs it, `make test` does not.
package e2e
