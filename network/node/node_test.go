package node

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet/etcd"
)

func TestNodeTakesALeaseAndSetsUpItsPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2, 3)
		n, stop := b.run()
		rep := n.reporter.report(t.Context())
		if !rep.Healthy() || peers(n) != "n2 n3" || !b.kernel.env().Present() || b.packets.Empty() {
			t.Errorf("report %+v, env %v", rep, b.kernel.env())
		}
		own, ok := b.store.Stored("n1").Get()
		if !ok || own.Endpoints != rep.Endpoints || own.Endpoints.V4 != opt.Some(netip.MustParseAddrPort("192.0.2.1:51820")) {
			t.Errorf("lease %+v, report announces %v", own, rep.Endpoints)
		}
		b.store.Change(func() { b.store.Leases = append(b.store.Leases, savedLease(4)) })
		synctest.Wait()
		if peers(n) != "n2 n3 n4" {
			t.Errorf("after a join: %s", peers(n))
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if b.packets.Empty() || !b.kernel.env().Present() {
			t.Error("the data path went with the daemon")
		}
	})
}

func TestLostLeaseIsTakenAgainWithTheSameSubnets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		n, stop := b.run()
		before, _ := b.store.Stored("n1").Get()
		b.store.Change(func() { b.store.Leases = b.store.Leases[:1] })
		b.store.Lose()
		later(2 * time.Second)
		after, ok := b.store.Stored("n1").Get()
		if !ok || after.Subnets != before.Subnets || !n.reporter.report(t.Context()).Healthy() {
			t.Errorf("before %v, after %v", before, after)
		}
		if b.logged.count("lease lost; claiming") != 1 {
			t.Error("the loss is not logged once")
		}
		must(t, stop())
	})
}

func TestAnotherNetworkMovesTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument)
		_, stop := b.run()
		b.store.Change(func() {
			b.store.Document = documentOf(t, `{"Network":"10.99.0.0/16","Backend":{"Type":"wireguard","ListenPort":4000}}`)
			b.store.Leases = nil
		})
		later(2 * time.Second)
		own, ok := b.store.Stored("n1").Get()
		if !ok || !netip.MustParsePrefix("10.99.0.0/16").Contains(own.Subnets.V4.Or(netip.Prefix{}).Addr()) ||
			own.Endpoints.V4.Or(netip.AddrPort{}).Port() != 4000 {
			t.Errorf("lease %+v", own)
		}
		if env, _ := b.kernel.env().Get(); env.Subnets != own.Subnets {
			t.Errorf("env %v", env)
		}
		if b.logged.count("this node's subnets changed") != 1 {
			t.Error("no warning about the pods that run")
		}
		must(t, stop())
	})
}

func TestNewAddressIsAnnouncedWithoutANewLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument)
		n, stop := b.run()
		b.kernel.set(func() { b.kernel.state.Uplinks = uplink("192.0.2.22") })
		n.reconciler.Kick()
		synctest.Wait()
		own, _ := b.store.Stored("n1").Get()
		if got := own.Endpoints.V4.Or(netip.AddrPort{}).String(); got != "192.0.2.22:51820" || b.logged.count("lease lost") > 0 {
			t.Errorf("the store announces %s", got)
		}
		if rep := n.reporter.report(t.Context()); !rep.Healthy() || rep.Endpoints != own.Endpoints {
			t.Errorf("report %+v", rep)
		}
		must(t, stop())
	})
}

var errNoSpace = errors.New("etcdserver: mvcc: database space exceeded")

// C8 (fault 06): the report said "announced 192.0.2.22" while the store had 192.0.2.1.
func TestReportShowsTheEndpointsThatTheStoreHoldsAndWhyItRefusesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		n, stop := b.run()
		b.store.Change(func() { b.store.ReadOnly = errNoSpace })
		b.kernel.set(func() { b.kernel.state.Uplinks = uplink("192.0.2.22") })
		n.reconciler.Kick()
		later(10 * time.Second)
		rep := n.reporter.report(t.Context())
		if !rep.Ready || rep.Healthy() || rep.Endpoints.V4 != opt.Some(netip.MustParseAddrPort("192.0.2.1:51820")) ||
			!strings.Contains(rep.Reason, "space exceeded") || !strings.Contains(rep.Reason, "announces 192.0.2.1:51820, and this node is reached at 192.0.2.22:51820") {
			t.Errorf("report %+v", rep)
		}
		if b.logged.count("trying again") != 1 {
			t.Error("the refusal is not logged once")
		}
		b.store.Change(func() { b.store.ReadOnly = nil })
		later(2 * time.Second)
		if rep := n.reporter.report(t.Context()); !rep.Healthy() || rep.Endpoints.V4 != opt.Some(netip.MustParseAddrPort("192.0.2.22:51820")) {
			t.Errorf("after the store has room: %+v", rep)
		}
		must(t, stop())
	})
}

// C8 (faults 06 and 07): a node with leases on disk starts, whatever the store answers.
func TestNodeWithLeasesOnDiskStartsWhateverTheStoreAnswers(t *testing.T) {
	for name, refuse := range map[string]func(fakeStore){
		"it is away":               func(s fakeStore) { s.Away = etcd.ErrUnavailable },
		"it refuses the password":  func(s fakeStore) { s.Away = errors.New("etcd refuses the user name or password") },
		"it has no space":          func(s fakeStore) { s.ReadOnly, s.Leases = errNoSpace, s.Leases[:2] },
		"its document is wrong":    func(s fakeStore) { s.Wrong, s.Leases = errors.New(`unknown Backend.Type "vxlan"`), s.Leases[:2] },
		"its document is gone":     func(s fakeStore) { s.Wrong, s.Leases = etcd.ErrNoNetwork, s.Leases[:2] },
		"the node's name is taken": func(s fakeStore) { s.ReadOnly = etcd.ErrNameTaken },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t, bedDocument, 2, 3)
				_, stop := b.run()
				later(2 * time.Second)
				must(t, stop())
				b.reboot()
				b.store.Change(func() { refuse(b.store) })
				n, stop := b.run()
				later(20 * time.Second)
				rep := n.reporter.report(t.Context())
				if !rep.Ready || rep.Reason == "" || peers(n) != "n2 n3" || !b.kernel.env().Present() {
					t.Errorf("report %+v, peers %s", rep, peers(n))
				}
				if name == "its document is wrong" && !b.store.Stored("n1").Present() {
					t.Error("the node does not take its lease again")
				}
				if err := stop(); err != nil {
					t.Errorf("the node ended: %v", err)
				}
			})
		})
	}
}

// reboot forgets everything but the state directory and the store.
func (b *bed) reboot() {
	fresh := newBed(b.t, bedDocument)
	b.device, b.firewall, b.packets, b.kernel, b.logged = fresh.device, fresh.firewall, fresh.packets, fresh.kernel, fresh.logged
	b.settings.RunDir, b.settings.SubnetFile, b.settings.Log = fresh.settings.RunDir, fresh.settings.SubnetFile, fresh.settings.Log
}

func TestNodeWithoutLeasesOnDiskEndsWithTheRefusal(t *testing.T) {
	for name, c := range map[string]struct {
		refuse func(fakeStore)
		want   string
	}{
		"no space":       {func(s fakeStore) { s.ReadOnly = errNoSpace }, "space exceeded"},
		"wrong document": {func(s fakeStore) { s.Wrong = errors.New("unknown Backend.Type") }, "unknown Backend.Type"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t, bedDocument)
				_, stop := b.runWith(func() { c.refuse(b.store) })
				if err := stop(); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v", err)
				}
				if b.kernel.env().Present() {
					t.Error("subnet.env is there")
				}
			})
		})
	}
}

// runWith starts a node for which the store changes between the first look and the start.
func (b *bed) runWith(change func()) (*node, func() error) {
	b.t.Helper()
	env := b.environment()
	p, err := env.prepare(b.t.Context(), b.settings)
	must(b.t, err)
	p.close()
	b.store.Change(change)
	var stop func() error
	var n *node
	if _, err := env.prepare(b.t.Context(), b.settings); err != nil {
		return nil, func() error { return err }
	}
	n, stop = b.run()
	later(time.Second)
	return n, stop
}

func TestNodeWaitsForStoreAndDocumentAndSaysFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, "")
		b.store.Away = etcd.ErrUnavailable
		n, stop := b.run()
		if rep := n.reporter.report(t.Context()); rep.Ready || rep.Reason != "waiting for etcd" {
			t.Errorf("without a store: %q", rep.Reason)
		}
		b.store.Change(func() { b.store.Away = nil })
		synctest.Wait()
		if rep := n.reporter.report(t.Context()); rep.Ready || rep.Reason != "waiting for a network document and a lease" {
			t.Errorf("without a document: %q", rep.Reason)
		}
		b.store.Change(func() { b.store.Document, b.store.Wrong = documentOf(t, bedDocument), nil })
		later(2 * time.Second)
		if rep := n.reporter.report(t.Context()); !rep.Healthy() {
			t.Errorf("with both: %q", rep.Reason)
		}
		b.store.Change(func() { b.store.Wrong = errors.New("SubnetMin is not in the range") })
		synctest.Wait()
		if rep := n.reporter.report(t.Context()); !rep.Ready || !strings.Contains(rep.Reason, "last valid document stands: SubnetMin") {
			t.Errorf("with a wrong document later: %q", rep.Reason)
		}
		must(t, stop())
	})
}

func TestStoreAwayLeavesPeersAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		n, stop := b.run()
		b.store.Change(func() { b.store.Away = etcd.ErrUnavailable })
		later(time.Hour)
		if rep := n.reporter.report(t.Context()); !rep.Ready || rep.Healthy() || rep.Store.Up || peers(n) != "n2" {
			t.Errorf("report %+v", rep)
		}
		must(t, stop())
	})
}

// N1: a refused lease gave its name and subnets to the peer whose key it repeats.
func TestPeersHaveTheNamesOfTheLeasesThatPlanAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		n, stop := b.run()
		thief := savedLease(9)
		thief.Node, thief.Key = "zeta", savedLease(2).Key
		b.store.Change(func() { b.store.Leases = append(b.store.Leases, thief) })
		synctest.Wait()
		rep := n.reporter.report(t.Context())
		if len(rep.Peers) != 1 || rep.Peers[0].Node != "n2" || rep.Peers[0].Subnets != savedLease(2).Subnets {
			t.Errorf("peers %+v", rep.Peers)
		}
		if len(rep.Problems) != 1 || rep.Healthy() || !rep.Ready {
			t.Errorf("problems %v, healthy %v", rep.Problems, rep.Healthy())
		}
		must(t, stop())
	})
}

// N2: status took 240 s while a userspace engine hung.
func TestReportComesWithinASecondWhileTheEngineHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		b.device = newUserspace()
		n, stop := b.run()
		b.device.Hang(true)
		began := time.Now()
		rep := n.reporter.report(t.Context())
		if took := time.Since(began); took > time.Second || !strings.Contains(rep.Reason, "does not answer") || rep.Healthy() {
			t.Errorf("after %v: %+v", took, rep)
		}
		later(time.Minute) // the hung engine is replaced
		if rep := n.reporter.report(t.Context()); !rep.Ready || len(rep.Peers) != 1 || rep.Engine.Replaced != 1 {
			t.Errorf("after the engine answers: %+v", rep)
		}
		must(t, stop())
	})
}

func TestFailedPassAndFirewallAreInTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		n, stop := b.run()
		b.packets.Refuse(opt.V4, 3, 4)
		if rep := n.reporter.report(t.Context()); len(rep.Firewall.Clear) != 2 || rep.Firewall.Clear[0].Packets != 3 || rep.Firewall.Clear[1].Packets != 4 {
			t.Errorf("guard %+v", rep.Firewall.Clear)
		}
		b.packets.Fail(errors.New("iptables: no memory"))
		later(time.Minute)
		rep := n.reporter.report(t.Context())
		if !rep.Ready || !strings.Contains(rep.Reason, "the last pass was incomplete") || !strings.Contains(rep.Reason, "counters cannot be read") {
			t.Errorf("report %+v", rep)
		}
		must(t, stop())
	})
}

func TestReportBeforeTheFirstPassSaysWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		n, stop := b.run()
		must(t, stop())
		lease := opt.Some(savedLease(1))
		in := n.reconciler.Inputs()
		for want, c := range map[string]struct {
			s  network.Status
			in network.Inputs
		}{
			"the data path is being set up":    {network.Status{}, network.Inputs{Lease: lease}},
			"the data path is not in place":    {network.Status{Err: errNoSpace}, network.Inputs{Lease: lease}},
			"waiting for a lease":              {network.Status{}, network.Inputs{Network: in.Network}},
			"waiting for a network document a": {network.Status{}, network.Inputs{}},
		} {
			if got := n.reporter.unready(c.s, true, c.in); !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}

// S11: a full disk once meant that the leases were never written again.
func TestLeasesOnDiskAreWrittenAgainWhenTheDiskHasRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2)
		must(t, os.MkdirAll(b.settings.StateDir, 0o700))
		inTheWay := filepath.Join(b.settings.StateDir, "leases.json", "full")
		must(t, os.MkdirAll(inTheWay, 0o700))
		_, stop := b.run()
		later(time.Minute)
		if b.logged.count("leases not kept on disk") != 1 {
			t.Errorf("the failure is logged %d times", b.logged.count("leases not kept on disk"))
		}
		must(t, os.RemoveAll(filepath.Dir(inTheWay)))
		later(saveRetry + 2*time.Second)
		if info, err := os.Stat(savedPath(b.settings.StateDir)); err != nil || !info.Mode().IsRegular() {
			t.Errorf("no leases on disk: %v", err)
		}
		must(t, stop())
	})
}

func TestWatcherIsStartedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument)
		n, stop := b.run()
		b.packets.Flush()
		synctest.Wait()
		if b.packets.Empty() {
			t.Error("the rules are not restored at once")
		}
		must(t, stop())
		_ = n
	})
}

func TestConflictingCNIConfigurationsAreNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument)
		b.settings.CNI = config.CNI{ConfDir: t.TempDir()}
		must(t, os.WriteFile(filepath.Join(b.settings.CNI.ConfDir, "05-other.conflist"), []byte("{}"), 0o644))
		_, stop := b.run()
		if b.logged.count("05-other.conflist") != 1 {
			t.Error("the conflict is not named")
		}
		if _, err := os.Stat(filepath.Join(b.settings.CNI.ConfDir, conflistName)); err != nil {
			t.Error(err)
		}
		must(t, stop())
	})
}

func TestPreferredSubnetsAreThoseOfSubnetEnvWithoutALease(t *testing.T) {
	b := newBed(t, bedDocument)
	must(t, config.WriteFile(b.settings.SubnetFile, []byte("FLANNEL_SUBNET=10.244.77.1/24\nFLANNEL_MTU=x\n"), 0o644, 0o755))
	got := preferred(network.Inputs{}, b.settings.SubnetFile, b.settings.Log)
	if got.V4 != opt.Some(netip.MustParsePrefix("10.244.77.0/24")) || b.logged.count("partly unreadable") != 1 {
		t.Errorf("got %v", got)
	}
	if got := preferred(network.Inputs{Lease: opt.Some(savedLease(1))}, b.settings.SubnetFile, b.settings.Log); got != savedLease(1).Subnets {
		t.Errorf("with a lease: %v", got)
	}
}

// C9 (fault 22): a daemon that was restarted with etcd at hand began with an older copy on
// disk, deleted the live peers that the copy did not name, and added them again.
func TestRestartRemovesNoPeerThatIsYoungerThanTheCopyOnDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t, bedDocument, 2, 3)
		b.restartWithOldCopy(4)
		n, stop := b.run()
		if peers(n) != "n2 n3 n4" {
			t.Errorf("peers %s", peers(n))
		}
		b.store.Change(func() { b.store.Leases = b.store.Leases[1:] }) // the store's word counts
		later(time.Minute)
		if peers(n) != "n3 n4" {
			t.Errorf("after n2 has left: peers %s", peers(n))
		}
		must(t, stop())
		if removed := b.removed(); len(removed) != 1 {
			t.Errorf("removals: %v, want n2's alone", removed)
		}
	})
}

// Without the store the copy on disk removes a silent peer after --store-wait, and a peer
// with a fresh handshake never.
func TestCopyOnDiskRemovesSilentPeersAloneAfterTheWait(t *testing.T) {
	for _, live := range []bool{false, true} {
		t.Run(fmt.Sprintf("live %v", live), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t, bedDocument, 2, 3)
				b.restartWithOldCopy(4)
				b.store.Change(func() { b.store.Away = etcd.ErrUnavailable })
				_, stop := b.run()
				later(b.settings.StoreWait - time.Second)
				if removed := b.removed(); len(removed) > 0 {
					t.Errorf("before the wait is over: %v", removed)
				}
				if live {
					b.device.Hear(savedLease(4).Key, savedLease(4).Endpoints.V4.Or(netip.AddrPort{}))
				}
				later(2 * time.Second)
				if removed := b.removed(); (len(removed) == 0) != live {
					t.Errorf("after the wait: %v", removed)
				}
				must(t, stop())
			})
		})
	}
}

// restartWithOldCopy lets a node run, join another node, and end before its copy on disk
// names that node.
func (b *bed) restartWithOldCopy(joins int) {
	b.t.Helper()
	_, stop := b.run()
	later(2 * time.Second)
	old, err := os.ReadFile(savedPath(b.settings.StateDir))
	must(b.t, err)
	b.store.Change(func() { b.store.Leases = append(b.store.Leases, savedLease(joins)) })
	synctest.Wait()
	must(b.t, stop())
	must(b.t, os.WriteFile(savedPath(b.settings.StateDir), old, 0o600))
	must(b.t, os.Remove(logPath(b.settings.StateDir))) // it belongs to the copy
}

// removed returns the changes in the log that removed a peer.
func (b *bed) removed() []string {
	return slices.DeleteFunc(b.logged.made(b.t), func(c string) bool {
		return !strings.HasPrefix(c, "device: delete peer") && !strings.HasPrefix(c, "device: remove peer")
	})
}

// S3: a document such as 128.0.0.0/1 was applied live, and the right document that was put
// back was never heard.
func TestDocumentThatWouldCutTheNodeOffIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		document string
		want     string
	}{
		"the store":   {`{"Network":"198.0.0.0/8","Backend":{"Type":"wireguard"}}`, "etcd http://198.51.100.7:2379: its address 198.51.100.7 lies in the overlay"},
		"the gateway": {`{"Network":"203.0.0.0/8","Backend":{"Type":"wireguard"}}`, "gateway of eth0: its address 203.0.113.1"},
		"a peer":      {`{"Network":"192.0.0.0/8","Backend":{"Type":"wireguard"}}`, "node \"n2\": its address 192.0.2.2"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBed(t, bedDocument, 2)
				b.settings.Etcd.Endpoints = []string{"http://198.51.100.7:2379"}
				b.kernel.state.Gateways = map[string]netip.Addr{"gateway of eth0": netip.MustParseAddr("203.0.113.1")}
				n, stop := b.run()
				before, _ := b.store.Stored("n1").Get()
				b.store.Change(func() { b.store.Document = documentOf(t, c.document) })
				later(time.Minute)
				rep := n.reporter.report(t.Context())
				if after, _ := b.store.Stored("n1").Get(); after != before || !strings.Contains(rep.Reason, c.want) || peers(n) != "n2" {
					t.Errorf("lease %v, was %v; reason %q", after.Subnets, before.Subnets, rep.Reason)
				}
				b.store.Change(func() { b.store.Document = documentOf(t, bedDocument) })
				later(time.Minute)
				if rep := n.reporter.report(t.Context()); !rep.Healthy() {
					t.Errorf("after the right document is back: %q", rep.Reason)
				}
				must(t, stop())
			})
		})
	}
}

func TestAddressesOfTheStoreAreThoseOfItsEndpoints(t *testing.T) {
	got := storeAddresses(t.Context(), config.Etcd{Endpoints: []string{"http://192.0.2.1:2379", "https://[2001:db8::1]:2379", "http://%zz", "http://localhost:2379", "http://name.invalid:1"}})
	if got["etcd http://192.0.2.1:2379"] != netip.MustParseAddr("192.0.2.1") || got["etcd https://[2001:db8::1]:2379"] != netip.MustParseAddr("2001:db8::1") {
		t.Errorf("got %v", got)
	}
	loopback := 0
	for _, a := range got {
		if a.Unmap().IsLoopback() {
			loopback++
		}
	}
	if loopback == 0 || len(got) != 2+loopback {
		t.Errorf("got %v", got)
	}
}
