package lab

import (
	"fmt"
	"net"
	"strings"

	"golang.org/x/sync/errgroup"
)

// smallLab is the number of nodes up to which a lab does everything with every pair, all at once.
const smallLab = 10

// acquaint writes the underlay addresses of all nodes into the neighbour table of each node of a
// large lab. The kernel bounds the learned neighbours of all network namespaces together (1,024 by
// default), and 200 nodes that ask for each other by broadcast make 4 million frames; permanent
// entries are not counted, and need no broadcast.
func (l *Lab) acquaint() error {
	if len(l.Nodes) <= smallLab {
		return nil
	}
	lines := make([]string, len(l.Nodes))
	for i, n := range l.Nodes {
		var link *net.Interface
		err := n.Do(func() (err error) {
			link, err = net.InterfaceByName("eth0")
			return err
		})
		if err != nil {
			return fmt.Errorf("read the link address of %s: %w", n.Name, err)
		}
		for _, a := range n.Underlay.All() {
			lines[i] = fmt.Sprintf("neigh replace %s lladdr %s dev eth0 nud permanent", a, link.HardwareAddr)
		}
	}
	all := strings.Join(lines, "\n")
	var group errgroup.Group
	group.SetLimit(4)
	for i, n := range l.Nodes {
		group.Go(func() error { return n.IP(strings.Replace(all, lines[i]+"\n", "", 1)) }) // not itself
	}
	return group.Wait()
}
