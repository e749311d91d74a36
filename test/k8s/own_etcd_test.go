//go:build k8s

package k8s

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// TestKubernetesWithAnEtcdOfLodensOwn is the way of clusters that have no etcd to offer: kubelet
// tells the pods where the service is, kube-proxy takes them there, no pod network needed. A pod
// that is not of the host's network cannot even open a connection to that etcd.
func TestKubernetesWithAnEtcdOfLodensOwn(t *testing.T) {
	certificates := exec.Command(repository("deploy/kubernetes/own-etcd/certificates.sh"), manifests("own-etcd")+"/certificates")
	if out, err := certificates.CombinedOutput(); err != nil {
		t.Fatalf("make certificates: %v: %s", err, out)
	}
	c := newCluster(t)
	t.Cleanup(func() {
		if t.Failed() {
			c.show(t)
		}
	})
	c.kubectl(t, "label", "node", c.nodes[0].name, "node-role.kubernetes.io/control-plane=")
	for _, n := range c.nodes {
		n.serve(t, "iptables")
	}
	c.becomesReady(t, "own-etcd")
	pods := c.startPods(t)
	reachEachOther(t, pods)
	var service struct {
		Spec struct{ ClusterIP string }
	}
	c.read(t, &service, "-n", "loden-system", "get", "service", "store")
	for _, at := range []string{service.Spec.ClusterIP, c.nodes[0].address} {
		if out, err := pods[0].exec("/bin/pod", "get", "https://"+host(at)+":22379/version"); err == nil || strings.Contains(fmt.Sprint(out, err), "tls:") {
			t.Errorf("a pod can open a connection to etcd at %s: %s, %v", at, out, err)
		}
	}
	c.kubectl(t, "-n", "loden-system", "delete", "pod", "store-0", "--wait=false")
	reachEachOther(t, pods)
	c.kubectl(t, "-n", "loden-system", "rollout", "status", "statefulset/store", "--timeout=60s")
	c.kubectl(t, "-n", "loden-system", "rollout", "status", "daemonset/loden", "--timeout=60s")
	reachEachOther(t, pods)
}
