package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network"
)

// lookupTime bounds the resolution of the store's names.
const lookupTime = 2 * time.Second

// storeAddresses returns the addresses of the store's endpoints, by endpoint. Names are
// resolved; a name without an address now is left out.
func storeAddresses(ctx context.Context, e config.Etcd) map[string]netip.Addr {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	out := map[string]netip.Addr{}
	for _, endpoint := range e.Endpoints {
		u, err := url.Parse(endpoint)
		if err != nil {
			continue // etcd's client has refused it
		}
		if a, err := netip.ParseAddr(u.Hostname()); err == nil {
			out["etcd "+endpoint] = a
			continue
		}
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
		if err != nil {
			continue
		}
		for _, a := range found {
			out[fmt.Sprintf("etcd %s (%s)", endpoint, a)] = a
		}
	}
	return out
}

// reachable refuses a network under which the store, a gateway or a peer's endpoint would be
// routed into the tunnel: a node that applied it would never hear of a better network.
func reachable(ctx context.Context, in network.Inputs, e config.Etcd) error {
	var errs []error
	for _, p := range network.OutsideProblems(in, storeAddresses(ctx, e)) {
		errs = append(errs, fmt.Errorf("%s: %s", p.Object, p.Reason))
	}
	return errors.Join(errs...)
}
