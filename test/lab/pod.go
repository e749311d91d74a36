package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox"
)

// Pod is a network namespace that a CNI runtime attached to its node.
type Pod struct {
	*sandbox.Host
	Node  *Node
	Addrs opt.Dual[netip.Addr]
	MTU   int // bytes
}

// confDir is where the daemon installs the node's CNI configuration.
const confDir = "/etc/cni/net.d"

// Attach makes a pod on the node and attaches it as a container runtime would: through
// the CNI plugins that the node's configuration names.
func (n *Node) Attach(ctx context.Context) (*Pod, error) {
	host, err := sandbox.NewHost(fmt.Sprintf("%s-pod%d", n.Name, len(n.Pods)+1))
	if err != nil {
		return nil, err
	}
	list, err := n.conf()
	if err != nil {
		return nil, errors.Join(err, host.Close())
	}
	result, err := n.cni().AddNetworkList(ctx, list, n.runtime(host))
	if err != nil {
		_ = n.cni().DelNetworkList(ctx, list, n.runtime(host)) // frees addresses; the error below is the cause
		return nil, errors.Join(fmt.Errorf("attach pod %s: %w", host.Name, err), host.Close())
	}
	pod := &Pod{Host: host, Node: n}
	n.Pods = append(n.Pods, pod)
	return pod, pod.take(result)
}

// attachTries is how often a pod of a large lab is attached. Hundreds of nodes on few processors keep the
// plugins waiting, and the reference bridge waits 5 s at most for an IPv6 address to be usable; a
// kubelet tries again too.
const attachTries = 4

// attach is Attach, tried again in a large lab.
func (n *Node) attach(ctx context.Context) (*Pod, error) {
	pod, err := n.Attach(ctx)
	for try := 1; err != nil && len(n.lab.Nodes) > smallLab && try < attachTries && ctx.Err() == nil; try++ {
		n.lab.report("%v: trying again", err)
		pod, err = n.Attach(ctx)
	}
	return pod, err
}

// Detach takes the pod off its node and removes it.
func (p *Pod) Detach(ctx context.Context) error {
	n := p.Node
	list, err := n.conf()
	if err != nil {
		return err
	}
	n.Pods = slices.DeleteFunc(n.Pods, func(q *Pod) bool { return p == q })
	return errors.Join(n.cni().DelNetworkList(ctx, list, n.runtime(p.Host)), p.Close())
}

// take notes the addresses and the MTU that the plugins gave the pod.
func (p *Pod) take(result types.Result) error {
	r, err := types100.NewResultFromResult(result)
	if err != nil {
		return fmt.Errorf("read result of attaching %s: %w", p.Name, err)
	}
	for _, ip := range r.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if ok {
			addr = addr.Unmap()
			p.Addrs = p.Addrs.With(opt.FamilyOf(addr), addr)
		}
	}
	return p.Do(func() error {
		link, err := net.InterfaceByName("eth0")
		if err == nil {
			p.MTU = link.MTU
		}
		return err
	})
}

// conf reads the node's CNI configuration.
func (n *Node) conf() (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(n.Path(confDir), []string{".conflist"})
	switch {
	case err != nil:
		return nil, fmt.Errorf("find CNI configuration of %s: %w", n.Name, err)
	case len(files) == 0:
		return nil, fmt.Errorf("%s has no CNI configuration", n.Name)
	}
	return libcni.ConfListFromFile(files[0])
}

// cni returns a CNI runtime whose plugins run on the node.
func (n *Node) cni() *libcni.CNIConfig {
	path := []string{n.lab.Bin, filepath.Join(n.lab.Bin, "cni")}
	return libcni.NewCNIConfigWithCacheDir(path, n.Path("/var/lib/cni/cache"), &nodeExec{host: n.Host})
}

func (n *Node) runtime(pod *sandbox.Host) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: pod.Name, NetNS: pod.NetNS(), IfName: "eth0"}
}

// nodeExec runs CNI plugins on a host of the sandbox.
type nodeExec struct {
	version.PluginDecoder
	host *sandbox.Host
}

// ExecPlugin runs a plugin; a failing plugin's own error object becomes the error.
func (e *nodeExec) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := e.host.Command(ctx, path)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, bytes.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	said := &types.Error{}
	if json.Unmarshal(stdout.Bytes(), said) == nil && said.Msg != "" {
		return nil, fmt.Errorf("run plugin %s: %w", filepath.Base(path), said)
	}
	return nil, fmt.Errorf("run plugin %s: %w: %s%s", filepath.Base(path), err, stderr.Bytes(), stdout.Bytes())
}

// FindInPath finds a plugin; the file system is the machine's own.
func (*nodeExec) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

// readable reports whether a program is there to be run.
func readable(path string) error {
	info, err := os.Stat(path)
	if err == nil && info.Mode()&0o111 == 0 {
		err = fmt.Errorf("%s cannot be run", path)
	}
	return err
}
