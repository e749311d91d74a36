package network_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
)

// heard is a device and a firewall that note the desired state and have no change.
type heard struct {
	device   opt.Option[backend.Config]
	firewall firewall.Config
}

type heardDevice struct{ *heard }

func (h heardDevice) Changes(_ context.Context, _ backend.PrivateKey, want opt.Option[backend.Config]) ([]diff.Change, error) {
	h.device = want
	return []diff.Change{{Part: "peers", Verb: "set", Object: "x"}}, nil
}

func (h heardDevice) Follow(_ context.Context, _, to backend.Config) ([]diff.Change, error) {
	h.device = opt.Some(to)
	return []diff.Change{{Part: "peers", Verb: "set", Object: "x"}}, nil
}

type heardFirewall struct{ *heard }

func (heardFirewall) Problems(context.Context, firewall.Config) ([]firewall.Problem, error) {
	return nil, nil
}

func (h heardFirewall) Changes(_ context.Context, want firewall.Config) ([]diff.Change, error) {
	h.heard.firewall = want
	return []diff.Change{{Part: "guard", Verb: "add", Object: "y"}}, nil
}

func TestEachPartGetsItsShareOfTheStateAndNamesItsChanges(t *testing.T) {
	in := inputs(t, dualDocument, 3)
	want, _ := network.Plan(in)
	h := &heard{}
	dir := t.TempDir()
	r := network.New(network.Options{Self: in.Self, Parts: network.Parts(network.PartOptions{
		SubnetFile: filepath.Join(dir, "subnet.env"), RunDir: dir, Interface: "tun9",
		Device: heardDevice{h}, Firewall: heardFirewall{h}, Observer: network.NewObserver("tun9", config.UplinkChoice{}),
	})})
	want.Sysctls = []network.Sysctl{{Path: "net/ipv4/ip_forward", Value: "another"}}
	changes, err := r.Pending(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	var parts []string
	for _, c := range changes {
		parts = append(parts, c.Part)
	}
	if got, all := slices.Compact(parts), []string{"firewall", "sysctls", "device", "routes", "env"}; !slices.Equal(got, all) {
		t.Errorf("changes of %q, want %q", got, all)
	}
	if d, ok := h.device.Get(); !ok || d.Peers.Len() != 2 || h.firewall != want.Firewall {
		t.Errorf("device got %v, firewall %v", h.device, h.firewall)
	}
}

func TestPreflightIsThePlanOfAnyLease(t *testing.T) {
	in := inputs(t, dualDocument, 3)
	want, _ := network.Plan(in)
	got, problems := network.Preflight(in)
	have, _ := got.Device.Get()
	planned, _ := want.Device.Get()
	if len(problems) > 0 || have.MTU != planned.MTU || have.Port != planned.Port || have.Peers.Len() != 0 ||
		got.Firewall.Guard.Uplinks != want.Firewall.Guard.Uplinks || got.Firewall.Forward.Len() != 2 {
		t.Errorf("problems %v, got:\n%s\nplan:\n%s", problems, text(got), text(want))
	}
}

func TestLeaseWithoutAFamilyOfTheNetworkIsAProblem(t *testing.T) {
	in := inputs(t, `{"Network":"10.244.0.0/16"}`, 1)
	l := node(1)
	l.Subnets = l.Subnets.Without(opt.V4)
	in.Lease = opt.Some(l)
	if s, problems := network.Plan(in); s.Device.Present() || len(problems) != 1 {
		t.Errorf("problems %v, state:\n%s", problems, text(s))
	}
}
