//go:build k8s

package k8s

import "testing"

// TestKubernetesWithAnEtcdOfLodensOwn is the way of clusters that have none to offer: kubelet
// tells the pods where the service is, kube-proxy takes them there, no pod network needed.
func TestKubernetesWithAnEtcdOfLodensOwn(t *testing.T) {
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
	c.kubectl(t, "-n", "loden-system", "delete", "pod", "store-0", "--wait=false")
	reachEachOther(t, pods)
	c.kubectl(t, "-n", "loden-system", "rollout", "status", "statefulset/store", "--timeout=60s")
	c.kubectl(t, "-n", "loden-system", "rollout", "status", "daemonset/loden", "--timeout=60s")
	reachEachOther(t, pods)
}
