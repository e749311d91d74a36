//go:build k8s

package k8s

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// The steps build on each other, so the first that fails is the last.
func TestKubernetes(t *testing.T) {
	c := newCluster(t)
	t.Cleanup(func() {
		if t.Failed() {
			c.show(t)
		}
	})
	var pods []pod
	for _, step := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"nodes become Ready with the DaemonSet", func(t *testing.T) { c.becomesReady(t, "loden") }},
		{"pods reach each other across nodes", func(t *testing.T) {
			pods = c.startPods(t)
			reachEachOther(t, pods)
		}},
		{"a dual-stack service, kube-proxy by iptables", func(t *testing.T) { c.servesBy(t, "iptables", pods) }},
		{"a dual-stack service, kube-proxy by nftables", func(t *testing.T) { c.servesBy(t, "nftables", pods) }},
		{"a node is cut off and comes back", func(t *testing.T) { c.isCutOff(t, pods) }},
		{"the DaemonSet is updated under streams", func(t *testing.T) { c.isUpdated(t, pods) }},
	} {
		began := time.Now()
		if !t.Run(step.name, step.run) {
			t.FailNow()
		}
		t.Logf("%s: %v", step.name, time.Since(began).Round(100*time.Millisecond))
	}
}

// manifests returns the directory of the manifests.
func manifests(name string) string { return repository("test/k8s/manifests/" + name) }

// becomesReady applies a manifest and wants both nodes to be Ready by it.
func (c *cluster) becomesReady(t *testing.T, name string) {
	t.Helper()
	c.kubectl(t, "wait", "node", "--all", "--for=condition=Ready=False", "--timeout=60s")
	var before struct {
		Items []struct {
			Status struct {
				Conditions []struct{ Type, Message string }
			}
		}
	}
	c.read(t, &before, "get", "nodes")
	for _, n := range before.Items {
		for _, is := range n.Status.Conditions {
			if is.Type == "Ready" && !strings.Contains(is.Message, "cni") {
				t.Errorf("before the DaemonSet a node is not Ready because %q, want the missing network", is.Message)
			}
		}
	}
	began := time.Now()
	c.kubectl(t, "apply", "-k", manifests(name))
	c.kubectl(t, "wait", "node", "--all", "--for=condition=Ready", "--timeout=120s")
	t.Logf("Ready %v after the DaemonSet was applied", time.Since(began).Round(100*time.Millisecond))
	c.kubectl(t, "-n", "loden-system", "rollout", "status", "daemonset/loden", "--timeout=60s")
	c.kubectl(t, "-n", "loden-system", "wait", "job/loden-network", "--for=condition=Complete", "--timeout=60s")
}

// servesBy wants the service's addresses of both families to answer on both nodes, in pods
// and outside of them, from the pods of both nodes.
func (c *cluster) servesBy(t *testing.T, mode string, pods []pod) {
	for _, n := range c.nodes {
		n.serve(t, mode)
	}
	for _, n := range c.nodes { // the rules of the other mode work until they go
		sandboxtest.Until(t, 60*time.Second, "rules of "+mode+" on "+n.name, func() error { return n.runs(mode) })
	}
	var service struct {
		Spec struct{ ClusterIPs []string }
	}
	c.read(t, &service, "get", "service", "web")
	if len(service.Spec.ClusterIPs) != 2 {
		t.Fatalf("the service has %v, want two addresses", service.Spec.ClusterIPs)
	}
	for _, ip := range service.Spec.ClusterIPs {
		for _, p := range pods {
			c.answeredByAll(t, ip+" in a pod on "+p.node, pods, func() (string, error) { return p.exec("/bin/pod", "get", "http://"+host(ip)) })
		}
		for _, n := range c.nodes {
			c.answeredByAll(t, ip+" on "+n.name, pods, func() (string, error) { return n.output(image("pod"), "get", "http://"+host(ip)) })
		}
	}
}

// answeredByAll asks until every pod has answered; after the first answer no answer may fail to come.
func (c *cluster) answeredByAll(t *testing.T, what string, pods []pod, ask func() (string, error)) {
	t.Helper()
	from := map[string]int{}
	sandboxtest.Until(t, 60*time.Second, "answers from "+what, func() error {
		name, err := ask()
		if err != nil {
			if len(from) > 0 {
				t.Errorf("after %v: %v", from, err)
			}
			return err
		}
		from[strings.TrimSpace(name)]++
		for _, p := range pods {
			if from[p.name] == 0 {
				return fmt.Errorf("answers are %v, none from %s", from, p.name)
			}
		}
		return nil
	})
	t.Logf("service %s: answers %v", what, from)
}

// runs returns an error while the rules of kube-proxy are not where its mode has them, and
// only there, both families'.
func (n *node) runs(mode string) error {
	for _, family := range []struct{ iptables, nft string }{{"iptables-save", "ip"}, {"ip6tables-save", "ip6"}} {
		iptables, err := n.output(family.iptables, "-t", "nat")
		if err != nil {
			return err
		}
		nftables, _ := n.output("nft", "list", "table", family.nft, "kube-proxy") // an error when there is none
		byIPTables, byNFTables := strings.Contains(iptables, "KUBE-SVC-"), strings.Contains(nftables, "-default/web/tcp/")
		if byIPTables != (mode == "iptables") || byNFTables != (mode == "nftables") {
			return fmt.Errorf("%s: by iptables %v, by nftables %v", family.nft, byIPTables, byNFTables)
		}
	}
	return nil
}

// isCutOff pulls a node's cable: it is NotReady, its pods are silent, and all is well soon
// after the cable is back.
func (c *cluster) isCutOff(t *testing.T, pods []pod) {
	lone := c.nodes[1]
	began := time.Now()
	if err := c.cable.Unplug(lone.host); err != nil {
		t.Fatal(err)
	}
	c.kubectl(t, "wait", "node/"+lone.name, "--for=condition=Ready=Unknown", "--timeout=120s")
	t.Logf("NotReady %v after the cable was pulled", time.Since(began).Round(100*time.Millisecond))
	for _, ip := range pods[1].ips {
		if err := pods[0].ping(ip, 1); err == nil {
			t.Errorf("ping %s is answered without a cable", ip)
		}
	}
	began = time.Now()
	if err := c.cable.Replug(lone.host); err != nil {
		t.Fatal(err)
	}
	for _, ip := range pods[1].ips {
		sandboxtest.Until(t, 60*time.Second, "ping "+ip, func() error { return pods[0].ping(ip, 1) })
		t.Logf("ping %s %v after the cable was back", ip, time.Since(began).Round(100*time.Millisecond))
	}
	c.kubectl(t, "wait", "node/"+lone.name, "--for=condition=Ready", "--timeout=120s")
	t.Logf("Ready %v after the cable was back", time.Since(began).Round(100*time.Millisecond))
	reachEachOther(t, pods)
}

// reachEachOther wants every ping between the pods to be answered, both ways of life.
func reachEachOther(t *testing.T, pods []pod) {
	t.Helper()
	for _, from := range pods {
		for _, to := range pods {
			for _, ip := range to.ips {
				if from.name == to.name {
					continue
				}
				if err := from.ping(ip, 5); err != nil {
					t.Errorf("%s: %v", from.node, err)
				} else {
					t.Logf("%s to %s at %s: 5 of 5 pings", from.node, to.node, ip)
				}
			}
		}
	}
}

// startPods starts a pod on each node and returns the pods in the nodes' order.
func (c *cluster) startPods(t *testing.T) []pod {
	began := time.Now()
	c.kubectl(t, "apply", "-k", manifests("pods"))
	c.kubectl(t, "rollout", "status", "daemonset/web", "--timeout=120s")
	t.Logf("pods ready %v after they were applied", time.Since(began).Round(100*time.Millisecond))
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ NodeName string }
			Status   struct{ PodIPs []struct{ IP string } }
		}
	}
	c.read(t, &list, "get", "pods", "-l", "app=web")
	var pods []pod
	for _, n := range c.nodes {
		for _, is := range list.Items {
			if is.Spec.NodeName != n.name {
				continue
			}
			p := pod{c: c, name: is.Metadata.Name, node: n.name}
			for _, ip := range is.Status.PodIPs {
				p.ips = append(p.ips, ip.IP)
			}
			pods = append(pods, p)
		}
	}
	if len(pods) != 2 || len(pods[0].ips) != 2 || len(pods[1].ips) != 2 {
		t.Fatalf("pods are %v, want one with two addresses on each node", pods)
	}
	return pods
}

// pod is a pod of manifests/pods.
type pod struct {
	c          *cluster
	name, node string
	ips        []string // both families
}

// exec runs a command in the pod and returns its output.
func (p pod) exec(words ...string) (string, error) {
	return p.c.ask(append([]string{"exec", p.name, "--"}, words...)...)
}

// ping sends count pings and wants every answer.
func (p pod) ping(ip string, count int) error {
	out, err := p.exec("ping", "-q", "-c", fmt.Sprint(count), "-i", "0.2", "-W", "2", ip)
	if err == nil && !strings.Contains(out, " 0% packet loss") {
		err = errors.New("packets lost")
	}
	if err != nil {
		return fmt.Errorf("ping %s: %w: %s", ip, err, out)
	}
	return nil
}

// host is an address as it is in a URL.
func host(ip string) string {
	if strings.Contains(ip, ":") {
		return "[" + ip + "]"
	}
	return ip
}
