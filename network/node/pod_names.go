package node

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/loden-net/loden/config/opt"
)

// cniResults are the directories in which container runtimes keep the results of the CNI
// plugins (libcni, CacheDir).
func cniResults() []string {
	return []string{"/var/lib/cni/results", "/var/lib/cni/cache/results"}
}

// podNamed finds a pod of this node by its Kubernetes name, by "namespace/name", or by its
// container's ID. It is false when no such pod is attached here, or when its results cannot
// be read.
func podNamed(name string) (opt.Dual[netip.Addr], bool) {
	for _, dir := range cniResults() {
		files, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, f := range files {
			data, err := os.ReadFile(filepath.Join(dir, f.Name()))
			if err != nil {
				continue
			}
			if p, ok := parseCNIResult(data); ok && p.named(name) {
				return p.addrs, true
			}
		}
	}
	return opt.Dual[netip.Addr]{}, false
}

// attachedPod is a pod as a result of the CNI plugins describes it.
type attachedPod struct {
	container, namespace, name string
	addrs                      opt.Dual[netip.Addr]
}

// named reports whether a text names the pod.
func (p attachedPod) named(text string) bool {
	return text != "" && (text == p.container || text == p.name || text == p.namespace+"/"+p.name)
}

// parseCNIResult reads a file of libcni's cache.
func parseCNIResult(data []byte) (attachedPod, bool) {
	var file struct {
		ContainerID string      `json:"containerId"`
		NetworkName string      `json:"networkName"`
		Args        [][2]string `json:"cniArgs"`
		Result      struct {
			IPs []struct {
				Address string `json:"address"`
			} `json:"ips"`
		} `json:"result"`
	}
	if json.Unmarshal(data, &file) != nil || file.NetworkName != "loden" {
		return attachedPod{}, false
	}
	p := attachedPod{container: file.ContainerID}
	for _, a := range file.Args {
		switch a[0] {
		case "K8S_POD_NAME":
			p.name = a[1]
		case "K8S_POD_NAMESPACE":
			p.namespace = a[1]
		}
	}
	for _, i := range file.Result.IPs {
		text, _, _ := strings.Cut(i.Address, "/")
		if a, err := netip.ParseAddr(text); err == nil {
			p.addrs = p.addrs.With(opt.FamilyOf(a), a)
		}
	}
	return p, !p.addrs.IsZero()
}
