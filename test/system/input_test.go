package system_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/loden-net/loden/test/lab"
)

// badInput is a mistake, and the words that the line about it must contain.
type badInput struct {
	prepare  string   // shell commands on the node; "before" is the state after them
	around   string   // shell commands in the daemon's own mount namespace, before it starts
	document string   // network document instead of the good document
	tcp, udp string   // address that another program on the node holds
	iface    string   // uplink in place of eth0
	flags    []string // further flags of loden run
	want     []string
}

// badInputs are the cases of the promise "a clear line, non-zero exit, no change".
func badInputs() map[string]badInput {
	return map[string]badInput{
		"no ip6tables": {
			around: "for f in /usr/sbin /sbin; do mkdir -p /run/p; for p in $f/*; do case $p in *ip6tables*) ;; *) ln -sf $p /run/p/;; esac; done; done; export PATH=/run/p:/usr/bin:/bin",
			flags:  []string{"--firewall", "iptables"},
			want:   []string{"ip6tables"},
		},
		"unknown backend type": {
			document: `{"Network":"10.244.0.0/16","Backend":{"Type":"carrier-pigeon"}}`,
			want:     []string{"carrier-pigeon"},
		},
		"wrong CIDR": {
			document: `{"Network":"10.244.0.0/33","Backend":{"Type":"wireguard"}}`,
			want:     []string{"10.244.0.0/33"},
		},
		"document that is no JSON": {
			document: `{"Network":`,
			want:     []string{"network"},
		},
		"key file of another size": {
			prepare: "echo no-key >/var/lib/loden/private.key; echo no-key >/var/lib/loden/key",
			want:    []string{"/var/lib/loden/"},
		},
		"TCP port taken": {
			tcp:   "198.18.0.17:9",
			flags: []string{"--listen-address", "198.18.0.17:9"},
			want:  []string{"--listen-address", "198.18.0.17:9"},
		},
		"UDP port taken": {
			udp:  "0.0.0.0:51820",
			want: []string{"51820"},
		},
		"unknown uplink": {
			iface: "eth9",
			want:  []string{"--iface", "eth0, eth1"},
		},
		"unknown engine": {
			flags: []string{"--engine", "steam"},
			want:  []string{"--engine", "steam"},
		},
		"no /dev/net/tun": {
			around: "mount -t tmpfs none /dev/net",
			flags:  []string{"--engine", "loden"},
			want:   []string{"/dev/net/tun"},
		},
	}
}

// TestBadInputIsOneLineAndChangesNothing runs `loden run` with a single mistake each time.
func TestBadInputIsOneLineAndChangesNothing(t *testing.T) {
	l := storeLab(t, lab.Options{Nodes: 1})
	n := l.Nodes[0]
	settle(t, n)
	for name, c := range badInputs() {
		t.Run(name, func(t *testing.T) {
			document := []byte(c.document)
			if c.document == "" {
				document = lab.Document(l.Families)
			}
			putRaw(t, l, document)
			if c.prepare != "" {
				if err := n.Run("sh", "-ec", c.prepare); err != nil {
					t.Fatal(err)
				}
			}
			t.Cleanup(func() {
				if err := errors.Join(n.Kill(), n.Run("sh", "-c", "rm -rf /var/lib/loden/*")); err != nil {
					t.Error(err)
				}
			})
			c.hold(t, n)
			before := lab.Snapshot(n.Host)
			out, err := n.Output("timeout", "-s", "KILL", "30", "sh", "-c", c.command(l, n))
			if err == nil {
				t.Fatalf("succeeded:\n%s", out)
			}
			last := lastLine(out)
			for _, want := range c.want {
				if !strings.Contains(last, want) {
					t.Errorf("last line does not name %q: %s", want, last)
				}
			}
			if strings.Contains(out, "panic") || strings.Contains(out, "goroutine ") || !strings.Contains(last, "loden: ") {
				t.Errorf("not one clear line:\n%s", out)
			}
			t.Log(last)
			if changed := lab.Differences(before, lab.Snapshot(n.Host)); len(changed) > 0 {
				t.Errorf("changed in %d lines, the first are\n%s", len(changed), strings.Join(changed[:min(8, len(changed))], "\n"))
			}
			noEngine(t, n)
		})
	}
}

// command returns the shell command that runs the daemon in this case.
func (c badInput) command(l *lab.Lab, n *lab.Node) string {
	command := strings.Join(append([]string{l.Program("loden"), "run"}, append(n.Flags(), c.flags...)...), " ")
	if c.iface != "" {
		command = strings.Replace(command, "--iface eth0", "--iface "+c.iface, 1)
	}
	if c.around != "" {
		command = c.around + "; " + command
	}
	return command
}

// hold opens the ports that another program is to have, until the end of the test.
func (c badInput) hold(t *testing.T, n *lab.Node) {
	t.Helper()
	var listening io.Closer
	err := n.Do(func() (err error) {
		switch {
		case c.tcp != "":
			listening, err = new(net.ListenConfig).Listen(t.Context(), "tcp", c.tcp)
		case c.udp != "":
			listening, err = new(net.ListenConfig).ListenPacket(t.Context(), "udp", c.udp)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if listening != nil {
		t.Cleanup(func() { _ = listening.Close() })
	}
}

// lastLine returns the last line of a command's output.
func lastLine(out string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[len(lines)-1]
}

// putRaw writes a document past `loden network put`, which would refuse a wrong document.
func putRaw(t *testing.T, l *lab.Lab, document []byte) {
	t.Helper()
	dial := func(ctx context.Context, addr string) (conn net.Conn, err error) {
		err = l.Store.Do(func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, "tcp", addr)
			return err
		})
		return conn, err
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{l.Store.Endpoint()},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), standLimit)
	defer cancel()
	if _, err := client.Put(ctx, "/coreos.com/network/config", string(document)); err != nil {
		t.Fatal(err)
	}
}
