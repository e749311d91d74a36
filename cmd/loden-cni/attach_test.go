package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

func TestPodsAttachAndReachEachOther(t *testing.T) {
	for _, v := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for _, kind := range families {
			t.Run(v+" "+kind.name, func(t *testing.T) {
				t.Parallel()
				n := newNode(t, kind.env, conflist(v, ""))
				a, b := n.pod(t, "a"), n.pod(t, "b")
				n.add(t, a)
				addrs := n.add(t, b)
				if len(addrs) != kind.env.Subnets.Len() {
					t.Errorf("pod has %v, want one address per family of %v", addrs, kind.env.Subnets)
				}
				n.reaches(t, addrs, "ip", "netns", "exec", n.Name+"-a")
				if v != "0.3.1" { // which has no CHECK
					if err := n.cni.CheckNetworkList(t.Context(), n.list, a); err != nil {
						t.Errorf("check: %v", err)
					}
				}
				n.del(t, a)
				n.del(t, a)
				n.del(t, b)
				n.clean(t)
			})
		}
	}
}

func TestPodGetsMTUAndRoutesOfSubnetEnv(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.0.0", ""))
	n.add(t, n.pod(t, "a"))
	for _, want := range []struct{ show, text string }{
		{"ip link show eth0", "mtu 1420"},
		{"ip route", "10.244.0.0/16 via 10.244.3.1"},
		{"ip route", "default via 10.244.3.1"},
		{"ip -6 route", "fd44::/48 via fd44:0:0:3::1"},
	} {
		words := append([]string{"netns", "exec", n.Name + "-a"}, strings.Fields(want.show)...)
		out, err := n.Output("ip", words...)
		if err != nil || !strings.Contains(out, want.text) {
			t.Errorf("%s: want %q in\n%s%v", want.show, want.text, out, err)
		}
	}
}

func TestSecondAddIsRefusedAndTheFirstGoesOn(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.1.0", ""))
	a := n.pod(t, "a")
	addrs := n.add(t, a)
	record := n.Path("/var/lib/cni/loden/lodentest/a@eth0")
	before, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	narrower := families[0].env
	narrower.MTU = 1300
	n.write(t, narrower)
	if _, err := n.cni.AddNetworkList(t.Context(), n.list, a); err == nil {
		t.Error("a second ADD of the same interface went through")
	}
	if after, err := os.ReadFile(record); err != nil || string(after) != string(before) {
		t.Errorf("the refused ADD left the record %s, %v, want the first one's %s", after, err, before)
	}
	n.reaches(t, addrs)
	n.del(t, a)
	n.clean(t)
}

func TestDelWithoutAddSucceeds(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.1.0", ""))
	n.del(t, n.pod(t, "a"))
	gone := &libcni.RuntimeConf{ContainerID: "gone", NetNS: "", IfName: "eth0"}
	n.del(t, gone)
	if err := os.Remove(n.Path("/run/flannel/subnet.env")); err != nil {
		t.Fatal(err)
	}
	n.del(t, gone)
	n.clean(t)
}

// So it is for pods that flannel's plugin attached before its conflist changed its type.
func TestDelOfAPodWithoutARecordFreesItsAddresses(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.0.0", ""))
	a := n.pod(t, "a")
	n.add(t, a)
	if err := os.Remove(n.Path("/var/lib/cni/loden/lodentest/a@eth0")); err != nil {
		t.Fatal(err)
	}
	n.del(t, a)
	n.clean(t)
}

func TestTwoInterfacesOfOneContainerAreApart(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.0.0", ""))
	first := n.pod(t, "a")
	second := *first
	second.IfName = "eth1"
	n.add(t, first)
	addrs := n.add(t, &second)
	if err := os.Remove(n.Path("/run/flannel/subnet.env")); err != nil { // only the records have the old delegate
		t.Fatal(err)
	}
	n.del(t, first)
	n.reaches(t, addrs)
	n.del(t, &second)
	n.clean(t)
}

func TestFailedDelCanBeTriedAgainAfterTheSubnetChanged(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.0.0", `,"delegate":{"type":"fussy","isGateway":true}`))
	n.script(t, "fussy", `
if [ "$CNI_COMMAND" = DEL ] && [ -e /run/loden/fussy ]; then
	echo '{"cniVersion":"1.0.0","code":11,"msg":"not now"}'; exit 1
fi
exec $BIN/bridge`)
	a := n.pod(t, "a")
	n.add(t, a)
	mark := n.Path("/run/loden/fussy")
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := n.cni.DelNetworkList(t.Context(), n.list, a)
	if r, ok := errors.AsType[*refusal](err); !ok || r.code != types.ErrTryAgainLater {
		t.Fatalf("DEL with a failing delegate: %v, want the delegate's own code 11", err)
	}
	n.use(t, conflist("1.0.0", "")) // only the record names it
	if err := os.Remove(n.Path("/run/flannel/subnet.env")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	n.del(t, a)
	n.clean(t)
}

func TestBridgeOfAnotherLifeIsRefusedWithWhatToDo(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.1.0", ""))
	a, b := n.pod(t, "a"), n.pod(t, "b")
	n.add(t, a)
	moved := families[0].env
	moved.Subnets = duo("10.244.7.0/24", "fd44:0:0:7::/64")
	n.write(t, moved)
	_, err := n.cni.AddNetworkList(t.Context(), n.list, b)
	if err == nil || !strings.Contains(err.Error(), "ip link delete cni0") || !strings.Contains(err.Error(), "10.244.3.1/24") {
		t.Errorf("ADD on the old bridge: %v, want what to do about 10.244.3.1/24", err)
	}
	if err := n.cni.CheckNetworkList(t.Context(), n.list, a); err == nil || !strings.Contains(err.Error(), "10.244.7.0/24") {
		t.Errorf("CHECK of a pod of the old subnet: %v, want the new subnet named", err)
	}
	n.del(t, a)
	if err := n.Run("ip", "link", "delete", "cni0"); err != nil {
		t.Fatal(err)
	}
	if addrs := n.add(t, b); !moved.Subnets.V4.Or(addrs[0]).Contains(addrs[0].Addr()) {
		t.Errorf("pod has %v, want an address of 10.244.7.0/24", addrs)
	}
	n.del(t, b)
	n.clean(t)
}

func TestCheckSeesWhatIsGone(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.0.0", ""))
	a := n.pod(t, "a")
	n.add(t, a)
	if err := n.Run("ip", "netns", "exec", n.Name+"-a", "ip", "addr", "flush", "dev", "eth0", "scope", "global"); err != nil {
		t.Fatal(err)
	}
	if err := n.cni.CheckNetworkList(t.Context(), n.list, a); err == nil {
		t.Error("CHECK of a pod without its addresses went through")
	}
	n.del(t, a)
}

func TestMissingSubnetEnvIsTryAgainLater(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.0.0", ""))
	if err := os.Remove(n.Path("/run/flannel/subnet.env")); err != nil {
		t.Fatal(err)
	}
	_, err := n.cni.AddNetworkList(t.Context(), n.list, n.pod(t, "a"))
	if r, ok := errors.AsType[*refusal](err); !ok || r.code != types.ErrTryAgainLater {
		t.Errorf("ADD without subnet.env: %v, want code 11", err)
	}
	half := config.Env{Networks: families[0].env.Networks, MTU: 1420}
	n.write(t, half)
	_, err = n.cni.AddNetworkList(t.Context(), n.list, n.pod(t, "b"))
	if r, ok := errors.AsType[*refusal](err); !ok || r.code != types.ErrInvalidNetworkConfig {
		t.Errorf("ADD with half a subnet.env: %v, want code 7", err)
	}
	n.clean(t)
}

func TestTwoHundredPodsAtOnceLeaveNothingBehind(t *testing.T) {
	n := newNode(t, families[0].env, conflist("1.1.0", ""))
	const pods = 200
	all := make([]*libcni.RuntimeConf, pods)
	for i := range all {
		all[i] = n.pod(t, fmt.Sprintf("p%d", i))
	}
	var mu sync.Mutex // guards given
	given := map[string]string{}
	each := func(what func(*libcni.RuntimeConf) error) {
		var wg sync.WaitGroup
		for _, pod := range all {
			wg.Go(func() {
				if err := what(pod); err != nil {
					t.Errorf("%s: %v", pod.ContainerID, err)
				}
			})
		}
		wg.Wait()
	}
	each(func(pod *libcni.RuntimeConf) error {
		result, err := n.cni.AddNetworkList(t.Context(), n.list, pod)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, a := range addressesOf(t, result) {
			if other, taken := given[a.String()]; taken {
				return fmt.Errorf("%s was given to %s too", a, other)
			}
			given[a.String()] = pod.ContainerID
		}
		return nil
	})
	if len(given) != 2*pods {
		t.Errorf("%d addresses given, want %d", len(given), 2*pods)
	}
	each(func(pod *libcni.RuntimeConf) error { return n.cni.DelNetworkList(t.Context(), n.list, pod) })
	n.clean(t)
}

// hang makes a delegate that completes the bridge's ADD and then never ends: the state that a
// runtime sees when its time limit is over, or the machine stalls.
const hang = `
if [ "$CNI_COMMAND" != ADD ]; then exec $BIN/bridge; fi
$BIN/bridge >/dev/null && touch /run/loden/hang
exec sleep 600`

func TestGCFreesWhatAKilledAddLeft(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.1.0", `,"delegate":{"type":"hang","isGateway":true}`))
	n.script(t, "hang", hang)
	ctx, kill := context.WithCancel(t.Context())
	done := make(chan error, 1)
	pod := n.pod(t, "a")
	go func() {
		_, err := n.cni.AddNetworkList(ctx, n.list, pod)
		done <- err
	}()
	sandboxtest.Until(t, 30*time.Second, "the delegate to hang", func() error {
		_, err := os.Stat(n.Path("/run/loden/hang"))
		return err
	})
	kill() // SIGKILL to the process, which is the delegate by now
	if err := <-done; err == nil {
		t.Error("a killed ADD succeeded")
	}
	if left := n.files(t, "/var/lib/cni"); len(left) != 3 {
		t.Fatalf("the killed ADD left %v, want a record and two addresses: this test proves nothing", left)
	}
	if err := n.cni.GCNetworkList(t.Context(), n.list, &libcni.GCArgs{}); err != nil {
		t.Fatal(err)
	}
	n.clean(t)
}

func TestGCKeepsTheValidAndFreesAddressesWithoutARecord(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.1.0", ""))
	kept, lost := n.pod(t, "kept"), n.pod(t, "lost")
	addrs := n.add(t, kept)
	n.add(t, lost)
	records := n.Path("/var/lib/cni/loden/lodentest")
	if err := os.Remove(filepath.Join(records, "lost@eth0")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(records, ".record123"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	n.forget(t)
	valid := []types.GCAttachment{{ContainerID: "kept", IfName: "eth0"}}
	if err := n.cni.GCNetworkList(t.Context(), n.list, &libcni.GCArgs{ValidAttachments: valid}); err != nil {
		t.Fatal(err)
	}
	want := []string{"kept@eth0", addrs[0].Addr().String(), addrs[1].Addr().String()}
	got := n.files(t, "/var/lib/cni")
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("after GC there is %v, want %v", got, want)
	}
	n.reaches(t, addrs)
	n.del(t, kept)
}
