package system_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// TestRebootedNodeStartsFromDiskUnderAWrongDocument is fault C8: an etcd that answers "no"
// was worse than an etcd that is away. Another program writes a document that Loden cannot
// use; a daemon that restarts then loses no packet, a node that reboots sets up its data path
// from the leases on disk, and its status names the cause.
func TestRebootedNodeStartsFromDiskUnderAWrongDocument(t *testing.T) {
	l := upLab(t, lab.Options{Nodes: 2, Pods: 1, Engines: []string{"loden", "wireguard-go"}})
	for _, n := range l.Nodes {
		if err := n.Serving(t.Context()); err != nil {
			t.Fatal(err)
		}
		sandboxtest.Until(t, standLimit, n.Name+" to have both leases on disk", func() error {
			saved, err := n.Output("cat", "/var/lib/loden/leases.json")
			if err == nil && !(strings.Contains(saved, `"node1"`) && strings.Contains(saved, `"node2"`)) {
				err = fmt.Errorf("on disk:\n%s", saved)
			}
			return err
		})
	}
	wrong := `{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}`
	if err := l.Store.Run(l.Program("etcdctl"), "--endpoints", l.Store.Endpoint(), "put", "/coreos.com/network/config", wrong); err != nil {
		t.Fatal(err)
	}
	end := traffic(t, l.Nodes[0].Pods[0], l.Nodes[1].Pods[0])
	for _, n := range l.Nodes {
		says(t, n, "the network document in the store is not used")
		restart(t, n, syscall.SIGTERM)
	}
	nothingLost(t, end())
	for _, n := range l.Nodes {
		reboot(t, n)
		startAndWait(t, n)
		out, err := n.Output(l.Program("loden"), "status")
		exit, failed := errors.AsType[*exec.ExitError](err)
		if !failed || exit.ExitCode() != 3 || !strings.Contains(strings.Join(strings.Fields(out), " "), `unknown Backend.Type "vxlan"`) {
			t.Errorf("loden status of %s: %v\n%s", n.Name, err, out)
		}
	}
	verdict(t, l)
}

// reboot takes from a node what a reboot takes: processes, interface, routes and run files.
func reboot(t *testing.T, n *lab.Node) {
	t.Helper()
	if err := n.Stop(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	const lost = "ip link del loden0; ip route flush proto 76; ip -6 route flush proto 76; nft flush ruleset; rm -f /run/flannel/subnet.env /run/loden/loden0.* /run/loden/*.json"
	if _, err := n.Output("sh", "-c", lost+"; true"); err != nil {
		t.Fatal(err)
	}
}

// TestPlanListsTheChangesThatRunMakes compares `loden plan` with the log of the first pass on
// real hosts: the subnets, the rules and every other change are the same.
func TestPlanListsTheChangesThatRunMakes(t *testing.T) {
	for name, o := range map[string]lab.Options{
		"loden, iptables":        {Engines: []string{"loden"}, Flags: []string{"--firewall", "iptables"}},
		"wireguard-go, nftables": {Engines: []string{"wireguard-go"}, Flags: []string{"--firewall", "nftables"}},
	} {
		t.Run(name, func(t *testing.T) {
			o.Nodes = 2
			l := storeLab(t, o)
			for _, n := range l.Nodes { // the second node has the first as a peer
				planned := plan(t, n)
				startAndWait(t, n, "--log-level", "debug") // which tells the changes of a start
				if made := changes(t, n.Daemon().Log()); !slices.Equal(made, planned) {
					t.Errorf("%s: plan:\n  %s\nrun:\n  %s", n.Name, strings.Join(planned, "\n  "), strings.Join(made, "\n  "))
				}
				if again := plan(t, n); len(again) > 0 {
					t.Errorf("%s: plan beside the running daemon: %v", n.Name, again)
				}
			}
		})
	}
}

// plan returns the changes of `loden plan` with the flags of the node.
func plan(t *testing.T, n *lab.Node) []string {
	t.Helper()
	out, err := n.Loden(append([]string{"plan", "--json", "--log-level", "error"}, n.Flags()...)...)
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Changes []diff.Change }
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	var text []string
	for _, c := range all.Changes {
		text = append(text, c.String())
	}
	return text
}

// changes returns the changes in a daemon's log up to the end of its first pass.
func changes(t *testing.T, log string) []string {
	t.Helper()
	var made []string
	for line := range strings.Lines(log) {
		var e struct{ Message, Part, Verb, Object string }
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			continue // output of the engine
		}
		switch e.Message {
		case "changed":
			made = append(made, e.Part+": "+e.Verb+" "+e.Object)
		case "the data path is in place":
			return made
		}
	}
	return made
}
