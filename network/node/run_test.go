package node

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// interrupt writes the temporary files that a SIGKILL in the middle of each write of the
// daemon leaves behind, and returns their paths.
func (b *bed) interrupt() []string {
	b.t.Helper()
	s, root := &b.settings, filepath.Dir(b.settings.StateDir)
	s.CNI.ConfDir, s.CNI.BinDir = root+"/conf", root+"/bin"
	var left []string
	for _, path := range []string{
		s.StateDir + "/.leases.json.77", s.StateDir + "/.private.key.1",
		s.RunDir + "/.settings.json.2", s.RunDir + "/.sysctls-found.json.3", s.RunDir + "/.loden0.endpoints.4", s.RunDir + "/.subnet.env.5",
		s.CNI.ConfDir + "/.10-loden.conflist.6", s.CNI.BinDir + "/..loden-plugins.7", s.CNI.BinDir + "/.bridge.8", s.CNI.BinDir + "/.portmap.9",
	} {
		b.put(path, "half a secret")
		left = append(left, path)
	}
	return left
}

// gone fails the test for every path that exists.
func gone(t testing.TB, paths []string) {
	t.Helper()
	for _, path := range paths {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s stays: %v", path, err)
		}
	}
}

// S14: a killed daemon left files with the pre-shared key, which no later run removed.
func TestRunAndDownSweepWhatAKilledDaemonLeft(t *testing.T) {
	b := newBed(t, bedDocument, 2)
	left := b.interrupt()
	b.settings.CNI.ConfDir, b.settings.CNI.BinDir = "", ""
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- b.environment().run(ctx, b.settings) }()
	for rep, err := Ask(ctx, b.settings.RunDir); err != nil || !rep.Healthy(); rep, err = Ask(ctx, b.settings.RunDir) {
		select {
		case <-time.After(10 * time.Millisecond):
		case err := <-ended:
			t.Fatalf("run ended: %v", err)
		}
	}
	gone(t, left[:6]) // without CNI directories the daemon has no files there
	stop()
	must(t, <-ended)
	b.interrupt()
	must(t, b.environment().down(t.Context(), b.settings, DownOptions{}))
	gone(t, left)
}

func TestRunRefusesBeforeItChangesTheHost(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*bed)
		want  string
	}{
		"certificate":    {func(b *bed) { b.storeFault = errors.New("--etcd-certfile: open /absent: no such file") }, "--etcd-certfile"},
		"no firewall":    {func(b *bed) { b.firewallFault = errors.New("neither iptables nor nft is installed") }, "neither iptables"},
		"no WireGuard":   {func(b *bed) { b.deviceFault = errors.New("/dev/net/tun is missing") }, "/dev/net/tun"},
		"wrong document": {func(b *bed) { b.store.Wrong = errors.New("unknown Backend.Type") }, "unknown Backend.Type"},
		"wrong address":  {func(b *bed) { b.settings.ListenAddress = "192.0.2.200:1" }, "--listen-address 192.0.2.200:1"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t, bedDocument, 2)
			c.spoil(b)
			if err := b.environment().run(t.Context(), b.settings); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, err := os.Stat(b.settings.RunDir); !errors.Is(err, fs.ErrNotExist) || !b.packets.Empty() || len(b.logged.made(t)) > 0 {
				t.Errorf("the host is changed: run directory %v, log %s", err, b.logged.text.String())
			}
		})
	}
}

// plan, check and down take the daemon's settings from the record.
func TestRecordIsNilWithoutADaemonAndAnErrorWhereItIsUnreadable(t *testing.T) {
	dir := t.TempDir()
	if got, err := Record(dir); got != nil || err != nil {
		t.Errorf("no daemon: %s, %v", got, err)
	}
	must(t, os.Mkdir(RecordPath(dir), 0o700)) // root could read every file
	if got, err := Record(dir); got != nil || err == nil || !strings.HasPrefix(err.Error(), "read the settings of the daemon: ") {
		t.Errorf("unreadable: %s, %v", got, err)
	}
}

// A node without a record must not leave the record of the daemon before it.
func TestNodeWithoutARecordRemovesAnOldRecord(t *testing.T) {
	s := Settings{Record: []byte("{}")}
	s.RunDir = t.TempDir()
	must(t, keepRecord(s))
	s.Record = nil
	must(t, keepRecord(s))
	if got, err := Record(s.RunDir); got != nil || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
}

// The plan of this machine opens the store first, which needs no privilege.
func TestPlanOfThisMachineNamesTheUnreadableCertificate(t *testing.T) {
	b := newBed(t, bedDocument)
	b.settings.Etcd.Endpoints = []string{"https://192.0.2.1:2379"}
	b.settings.Etcd.CAFile = b.settings.StateDir + "/absent.pem"
	if _, err := Plan(t.Context(), b.settings); err == nil || !strings.Contains(err.Error(), "absent.pem") {
		t.Errorf("got %v", err)
	}
}
