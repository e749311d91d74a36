package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/test/sandbox/etcdtest"
)

// command runs a command line of lease or network and returns its output.
func command(t *testing.T, ctx context.Context, endpoint string, args ...string) (string, error) {
	t.Helper()
	var node config.Node
	root := &cobra.Command{Use: "loden", SilenceUsage: true, SilenceErrors: true}
	root.AddCommand(leaseCommand(&node), networkCommand(&node))
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	if endpoint != "" {
		args = append(args, "--etcd-endpoints", endpoint, "--timeout", "20s")
	}
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

func document(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "network.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

const dualDocument = `{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"wireguard","PSK":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="}}`

func TestNetworkCheckPrintsTheEffectiveDocumentWithoutEtcd(t *testing.T) {
	out, err := command(t, t.Context(), "", "network", "check", document(t, dualDocument))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"SubnetLen": 24.0, "SubnetMin": "10.5.1.0", "SubnetMax": "10.5.255.0", "IPv6SubnetLen": 64.0, "IPv6SubnetMin": "fd00:5:0:1::"} {
		if got[key] != want {
			t.Errorf("%s: got %v, want %v", key, got[key], want)
		}
	}
	if strings.Contains(out, "BwcH") {
		t.Errorf("the pre-shared key is printed: %s", out)
	}
	if _, err := command(t, t.Context(), "", "network", "check", document(t, `{"Network":"10.5.0.0/30"}`)); err == nil {
		t.Error("a wrong document passes")
	}
}

func TestNetworkPutRefusesToMoveLivingLeases(t *testing.T) {
	etcd := etcdtest.Start(t)
	run := func(args ...string) (string, error) { return command(t, t.Context(), etcd, args...) }
	if out, err := run("network", "get"); err == nil || !strings.Contains(err.Error(), "loden network put") {
		t.Errorf("no document yet: %q, %v", out, err)
	}
	must(t, run, "network", "put", document(t, dualDocument))
	if out := must(t, run, "network", "get"); strings.TrimSpace(out) != dualDocument {
		t.Errorf("get: %s", out)
	}
	if out := must(t, run, "network", "get", "--effective"); strings.Contains(out, "BwcH") || !strings.Contains(out, `"IPv6SubnetMin"`) {
		t.Errorf("get --effective: %s", out)
	}
	writeLease(t, etcd, "10.5.7.0-24", "192.0.2.7")
	moving := document(t, `{"Network":"10.6.0.0/16"}`)
	out, err := run("network", "put", moving)
	if err == nil || !strings.Contains(err.Error(), "--force") || !strings.Contains(out, "would move: 10.5.7.0/24 of node (flannel)") {
		t.Errorf("put of a document that moves a lease: %q, %v", out, err)
	}
	must(t, run, "network", "put", moving, "--force")
	must(t, run, "network", "put", document(t, dualDocument), "--force")
}

// writeLease writes a lease as flannel does.
func writeLease(t *testing.T, endpoint, leaf, address string) {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	value := `{"PublicIP":"` + address + `","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=","Port":51820}}`
	granted, err := c.Grant(t.Context(), 600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), "/coreos.com/network/subnets/"+leaf, value, clientv3.WithLease(granted.ID)); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, run func(...string) (string, error), args ...string) string {
	t.Helper()
	out, err := run(args...)
	if err != nil {
		t.Fatalf("loden %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func TestLeaseReserveListAndRelease(t *testing.T) {
	etcd := etcdtest.Start(t)
	run := func(args ...string) (string, error) { return command(t, t.Context(), etcd, args...) }
	must(t, run, "network", "put", document(t, dualDocument))
	if out := must(t, run, "lease", "reserve", "worker-1", "--subnet", "10.5.9.0/24"); out != "10.5.9.0/24 fd00:5:0:9::/64 reserved for node worker-1\n" {
		t.Errorf("reserve: %q", out)
	}
	for _, bad := range [][]string{
		{"lease", "reserve", "worker-2", "--subnet", "10.5.9.0/24"}, {"lease", "reserve", "worker-2", "--subnet", "10.7.0.0/24"},
		{"lease", "reserve", "worker-2", "--subnet", "fd00::/64"}, {"lease", "reserve", "no name"}, {"lease", "release", "worker-3"},
	} {
		if out, err := run(bad...); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("loden %s: %q, %v; want one line", strings.Join(bad, " "), out, err)
		}
	}
	writeLease(t, etcd, "10.5.7.0-24", "192.0.2.7")
	writeLease(t, etcd, "10.6.7.0-24", "192.0.2.8")
	out := must(t, run, "lease", "list")
	for _, line := range []string{
		`(?m)^NODE +SUBNETS +ENDPOINTS +PUBLIC KEY +AGE +TTL LEFT +HELD BY$`,
		`(?m)^worker-1 +10\.5\.9\.0/24 fd00:5:0:9::/64 +- +- +\S+ +reserved +no node yet$`,
		`(?m)^- +10\.5\.7\.0/24 +192\.0\.2\.7:51820 +BwcH\S+= +- +\d\S+ +flannel$`,
		`(?m)^problem: 10\.6\.7\.0-24: .*`,
	} {
		if !regexp.MustCompile(line).MatchString(out) {
			t.Errorf("no line %s in\n%s", line, out)
		}
	}
	var list leaseList
	if err := json.Unmarshal([]byte(must(t, run, "lease", "list", "--json")), &list); err != nil || len(list.Leases) != 3 || len(list.Problems) == 0 {
		t.Errorf("--json: %+v, %v", list, err)
	}
	must(t, run, "lease", "release", "10.6.7.0-24")
	must(t, run, "lease", "release", "worker-1")
	if out := must(t, run, "lease", "list"); !strings.Contains(out, "worker-1") {
		t.Errorf("release ended the reservation: %s", out)
	}
	must(t, run, "lease", "release", "worker-1", "--reservation")
	if out := must(t, run, "lease", "list"); strings.Contains(out, "worker-1") || !strings.Contains(out, "10.5.7.0/24") {
		t.Errorf("after releases: %s", out)
	}
}

func TestLeaseWatchPrintsWhatHappens(t *testing.T) {
	etcd := etcdtest.Start(t)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	run := func(args ...string) (string, error) { return command(t, t.Context(), etcd, args...) }
	must(t, run, "network", "put", document(t, dualDocument))
	writeLease(t, etcd, "10.5.7.0-24", "192.0.2.7")
	var node config.Node
	cmd := leaseCommand(&node)
	lines := lineWriter{c: make(chan string, 10)}
	cmd.SetOut(lines)
	cmd.SetArgs([]string{"watch", "--etcd-endpoints", etcd})
	done := make(chan error, 1)
	go func() { done <- cmd.ExecuteContext(ctx) }()
	// next reads a line that starts with want; lines that start with skip may come before.
	next := func(want, skip string) {
		t.Helper()
		for {
			select {
			case got := <-lines.c:
				if skip != "" && strings.HasPrefix(got, skip) {
					continue
				}
				if !strings.HasPrefix(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
				return
			case <-ctx.Done():
				t.Fatalf("no line; want %q", want)
			}
		}
	}
	next("+ (flannel)  10.5.7.0/24  192.0.2.7:51820", "")
	writeLease(t, etcd, "10.5.7.0-24", "192.0.2.77")
	next("~ (flannel)  10.5.7.0/24  192.0.2.77:51820", "")
	must(t, run, "lease", "release", "10.5.7.0-24")
	// Its notice that it leaves is a change of its own, unless etcd sends both at once.
	next("- (flannel)  10.5.7.0/24", "~")
	stop()
	if err := <-done; err != nil {
		t.Errorf("watch ended with %v", err)
	}
}

type lineWriter struct{ c chan string }

func (w lineWriter) Write(p []byte) (int, error) {
	w.c <- string(p)
	return len(p), nil
}

func TestCommandsEndInTimeWithoutEtcd(t *testing.T) {
	file := document(t, dualDocument)
	for _, args := range [][]string{
		{"lease", "list"}, {"lease", "release", "a"}, {"lease", "reserve", "a"}, {"lease", "watch"}, {"network", "get"}, {"network", "put", file},
	} {
		start := time.Now()
		_, err := command(t, t.Context(), "", append(args, "--etcd-endpoints", "http://127.0.0.1:1", "--timeout", "500ms")...)
		if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "--etcd-endpoints") {
			t.Errorf("loden %s: %v", strings.Join(args, " "), err)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("loden %s took %v", strings.Join(args, " "), took)
		}
	}
}

// An operator on a node spoke to http://127.0.0.1:2379 while its daemon used another etcd.
func TestCommandsSpeakToTheEtcdOfTheDaemonUnlessTheFlagsNameAnother(t *testing.T) {
	server := etcdtest.Start(t)
	dir := t.TempDir()
	record, err := json.Marshal(map[string][]string{"etcd-endpoints": {server}, "etcd-prefix": {"/" + t.Name()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "settings.json"), record, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := command(t, t.Context(), "", "network", "put", document(t, dualDocument), "--run-dir", dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := command(t, t.Context(), "", "network", "get", "--run-dir", dir); err != nil || !strings.Contains(out, "fd00:5::/48") {
		t.Errorf("get with the settings of the daemon: %v\n%s", err, out)
	}
	if out, err := command(t, t.Context(), server, "network", "get", "--run-dir", dir, "--etcd-prefix", "/"+t.Name()); err != nil {
		t.Errorf("get with endpoints and prefix given: %v\n%s", err, out)
	}
	if out, err := command(t, t.Context(), server, "network", "get", "--run-dir", dir); err == nil {
		t.Errorf("endpoints are given, and the prefix is the daemon's all the same:\n%s", out)
	}
}
