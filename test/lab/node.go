package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox"
)

// Node is a host that runs the daemon.
type Node struct {
	*sandbox.Host
	Underlay opt.Dual[netip.Addr] // of eth0: where tunnels end
	Internet opt.Dual[netip.Addr] // of eth1: source of masqueraded traffic
	Pods     []*Pod

	lab    *Lab
	number int
	daemon *Process
}

// subnetEnv is where the daemon says that the data path stands.
const subnetEnv = "/run/flannel/subnet.env"

// Flags returns the flags of the node's `loden run`.
func (n *Node) Flags() []string {
	flags := []string{
		"--etcd-endpoints", n.lab.Store.Endpoint(),
		"--node-name", n.Name,
		"--iface", "eth0",
		"--ip-masq",
		"--cni-conf-dir", confDir,
		"--engine", n.lab.engine(n.number),
	}
	flags = append(flags, n.lab.Flags...)
	if n.number == 0 {
		flags = append(flags, n.lab.First...)
	}
	return flags
}

// Start starts `loden run` with the node's flags and extra ones. It does not wait for
// anything; see Ready.
func (n *Node) Start(extra ...string) error {
	args := append([]string{"run"}, append(n.Flags(), extra...)...)
	cmd := n.Command(context.Background(), n.lab.Program("loden"), args...)
	process, err := start(n.Name, cmd, n.Path("/run/loden/daemon.log"))
	if err != nil {
		return err
	}
	n.daemon = process
	return nil
}

// Launch starts a program of the lab on the node, beside the daemon. Its output is kept under
// its name. It ends with the lab, unless the caller stops it earlier.
func (n *Node) Launch(name, program string, args ...string) (*Process, error) {
	cmd := n.Command(context.Background(), n.lab.Program(program), args...)
	return start(name, cmd, n.Path("/run/loden/"+name+".log"))
}

// Daemon returns the `loden run` that was started last.
func (n *Node) Daemon() *Process { return n.daemon }

// Stop ends `loden run` by a signal. The data path stays.
func (n *Node) Stop(sig syscall.Signal) error { return n.daemon.Stop(sig, stopLimit) }

// Ready waits until pods can be attached: subnet.env has the wanted families, and the CNI
// configuration is there.
func (n *Node) Ready(ctx context.Context) error {
	return until(ctx, n.daemon, n.Name+" to write subnet.env", func() error {
		env, err := n.Env()
		if err != nil {
			return err
		}
		for _, f := range n.lab.Families.List() {
			if !env.Subnets.Of(f).Present() {
				return fmt.Errorf("no %s subnet in it", f)
			}
		}
		_, err = n.conf()
		return err
	})
}

// Env reads the node's subnet.env.
func (n *Node) Env() (config.Env, error) {
	data, err := os.ReadFile(n.Path(subnetEnv))
	if err != nil {
		return config.Env{}, err
	}
	return config.ParseEnv(data)
}

// Loden runs a short command of the loden program on the node and returns its output.
func (n *Node) Loden(args ...string) (string, error) {
	return n.Output(n.lab.Program("loden"), args...)
}

// newNode makes the node's host with both its links and a default route by the outside.
func (l *Lab) newNode(number int) (*Node, error) {
	host, err := sandbox.NewHost(fmt.Sprintf("node%d", number+1))
	if err != nil {
		return nil, err
	}
	n := &Node{Host: host, lab: l, number: number}
	under := addresses(underlay(), l.Underlay, firstNode+number)
	inter := addresses(internet(), Dual, firstNode+number)
	addr := func(_ opt.Family, p netip.Prefix) netip.Addr { return p.Addr() }
	n.Underlay, n.Internet = opt.Map(under, addr), opt.Map(inter, addr)
	err = errors.Join(
		plug(l.underlay, host, "eth0", under),
		plug(l.internet, host, "eth1", inter),
	)
	if err != nil {
		return n, err
	}
	var routes []string
	for _, gw := range addresses(internet(), Dual, outsideNumber).All() {
		routes = append(routes, fmt.Sprintf("route add default via %s dev eth1", gw.Addr()))
	}
	return n, host.IP(routes...)
}

// plug joins a host to a switch with its addresses, usable at once.
func plug(s *sandbox.Switch, h *sandbox.Host, iface string, addrs opt.Dual[netip.Prefix]) error {
	if err := s.Plug(h, iface); err != nil {
		return err
	}
	var commands []string
	for family, a := range addrs.All() {
		command := fmt.Sprintf("addr add %s dev %s", a, iface)
		if family == opt.V6 {
			command += " nodad" // duplicate address detection takes a second or two
		}
		commands = append(commands, command)
	}
	return h.IP(commands...)
}
