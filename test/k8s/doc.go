// Package k8s owns the proof that Loden is a pod network of Kubernetes: a control plane and
// two kubelets from their own sources, our manifests applied by kubectl. It needs a long
// build (kept in bin/k8s), runc, buildah and debootstrap: `make e2e-k8s` runs it, `make
// test` does not. Directory pod has the program of the pods, manifests the objects.
package k8s
