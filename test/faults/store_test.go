package faults_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// leasesPrefix is where leases stand in etcd.
const leasesPrefix = "/coreos.com/network/subnets/"

// etcdctl runs a command of etcd's client on the store's host.
func (b *bed) etcdctl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.Store.Output(b.Program("etcdctl"), append([]string{"--endpoints", b.Store.Endpoint()}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// signalStore sends a signal to etcd.
func (b *bed) signalStore(t *testing.T, s syscall.Signal) {
	t.Helper()
	pids, err := b.Store.PIDs()
	for _, p := range pids {
		pid, bad := strconv.Atoi(p)
		err = errors.Join(err, bad, syscall.Kill(pid, s))
	}
	if err != nil || len(pids) == 0 {
		t.Fatal(pids, err)
	}
}

// storeFaults are faults of the store, the leases and the keys.
func storeFaults() []fault {
	return []fault{
		{1, "a lease has a wrong key", true, func(t *testing.T, b *bed) []evidence {
			key := b.leaseOf(t, b.a)
			value := b.etcdctl(t, "get", "--print-value-only", key)
			wrong, err := wgtypes.GenerateKey()
			if err != nil {
				t.Fatal(err)
			}
			b.etcdctl(t, "put", key, strings.ReplaceAll(value, publicKey(t, b.a), wrong.PublicKey().String()))
			return ofDoctor(b, `repairs: .*lease: was lost in the store`, `loden has mended it`)
		}, nil},
		{11, "etcd hangs", false, func(t *testing.T, b *bed) []evidence {
			b.signalStore(t, syscall.SIGSTOP)
			return ofDoctor(b, `etcd: get network document: etcd is not available`, `(?i)start it|--etcd-endpoints|mend etcd`)
		}, func(t *testing.T, b *bed) { b.signalStore(t, syscall.SIGCONT) }},
		{12, "etcd asks for a user", true, func(t *testing.T, b *bed) []evidence {
			b.etcdctl(t, "user", "add", "root:secret-of-root")
			b.etcdctl(t, "user", "grant-role", "root", "root")
			b.etcdctl(t, "auth", "enable")
			return ofDoctor(b, `etcd asks for a user`, `--etcd-username`)
		}, func(t *testing.T, b *bed) { b.etcdctl(t, "--user", "root:secret-of-root", "auth", "disable") }},
		{14, "all leases are deleted", true, func(t *testing.T, b *bed) []evidence {
			b.etcdctl(t, "del", "--prefix", leasesPrefix)
			return ofDoctor(b, `repairs: .*lease: was lost in the store`, `loden has mended it`)
		}, nil},
		{15, "many leases vanish at once", false, func(t *testing.T, b *bed) []evidence {
			keys := b.strangers(t, 12)
			sandboxtest.Until(t, standLimit, "12 more peers", func() error {
				if out, _ := b.a.Loden("status"); !strings.Contains(out, "of 13 peers up") {
					return errors.New(out)
				}
				return nil
			})
			for _, k := range keys {
				b.etcdctl(t, "del", k)
			}
			return ofStatus(b, `leases: \d+ leases vanished at once and are held as peers`, `loden lease confirm`)
		}, func(t *testing.T, b *bed) {
			sh(t, b.a, b.Program("loden")+" lease confirm")
			sh(t, b.b, b.Program("loden")+" lease confirm")
		}},
		{27, "two nodes have the same key", false, func(t *testing.T, b *bed) []evidence {
			data, err := os.ReadFile(b.b.Path("/var/lib/loden/private.key"))
			err = errors.Join(err, os.WriteFile(b.c.Path("/var/lib/loden/private.key"), data, 0o600), b.c.Start())
			if err != nil {
				t.Fatal(err)
			}
			const cause, remedy = `the two machines have one private key`, `delete the file private.key in its state directory`
			return []evidence{{b.c, []string{"status"}, cause, remedy}, {b.b, []string{"status"}, cause, remedy}}
		}, func(t *testing.T, b *bed) { b.stopThird(t) }},
		{28, "two nodes have the same name", false, func(t *testing.T, b *bed) []evidence {
			if err := b.c.Start("--node-name", b.b.Name); err != nil {
				t.Fatal(err)
			}
			doctor := append([]string{"doctor"}, b.c.Flags()...)
			return []evidence{{b.c, append(doctor, "--node-name", b.b.Name), `node name: the lease of "node2" belongs to another machine, with key \S+ at 172.20.0.18:51820`, `--node-name`}}
		}, func(t *testing.T, b *bed) { b.stopThird(t) }},
		{29, "a node announces an address that nobody reaches", false, func(t *testing.T, b *bed) []evidence {
			startNode(t, b.c, "--public-ip", "203.0.113.9")
			pod, _ := b.a.Pods[0].Addrs.V4.Get()
			sh(t, b.c, "ping -c 3 -i 0.3 -W 1 "+pod.String()+" >/dev/null || true")
			return ofStatus(b, `peer node3: its lease announces 203.0.113.9:51820, and it is heard at 172.20.0.19:51820`, `--public-ip`)
		}, func(t *testing.T, b *bed) { b.stopThird(t) }},
	}
}

// leaseOf returns the etcd key of a node's lease.
func (b *bed) leaseOf(t *testing.T, n *lab.Node) string {
	t.Helper()
	want := strings.ReplaceAll(subnetOf(t, n, opt.V4), "/", "-")
	for _, key := range strings.Fields(b.etcdctl(t, "get", "--prefix", leasesPrefix, "--keys-only")) {
		if strings.Contains(key, want) {
			return key
		}
	}
	t.Fatalf("%s has no lease", n.Name)
	return ""
}

// publicKey returns the public key of a node.
func publicKey(t *testing.T, n *lab.Node) string {
	t.Helper()
	return sh(t, n, "wg show loden0 public-key")
}

// strangers writes leases of nodes that do not exist, and returns their keys in etcd.
func (b *bed) strangers(t *testing.T, number int) []string {
	t.Helper()
	taken := subnetOf(t, b.a, opt.V4) + " " + subnetOf(t, b.b, opt.V4)
	var keys []string
	for i := 1; len(keys) < number; i++ {
		if strings.Contains(taken, fmt.Sprintf("10.244.%d.0", i)) {
			continue
		}
		k, err := wgtypes.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		data := fmt.Sprintf(`{"PublicKey":%q,"Port":51820}`, k.PublicKey())
		key := fmt.Sprintf("%s10.244.%d.0-24&fd10:244:0:%x::-64", leasesPrefix, i, i)
		b.etcdctl(t, "put", key, fmt.Sprintf(`{"PublicIP":"172.20.9.%d","PublicIPv6":null,"BackendType":"wireguard","BackendData":%s,"BackendV6Data":%s,"Node":"stranger%d"}`, i, data, data, i))
		keys = append(keys, key)
	}
	return keys
}

// stopThird ends the daemon of the third node and removes what it left.
func (b *bed) stopThird(t *testing.T) {
	err := b.c.Stop(syscall.SIGTERM)
	_, down := b.c.Loden(append([]string{"down"}, b.c.Flags()...)...)
	if err := errors.Join(err, down, b.c.Run("sh", "-c", "rm -rf /var/lib/loden/*")); err != nil {
		t.Error(err)
	}
}
