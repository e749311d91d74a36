package firewall

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/loden-net/loden/config/set"
)

// Underlay returns the prefixes that the named interfaces are connected to, for
// Policy.Except: where hosts are numbered from the overlay's own range the guard must not
// take them for pods. Interfaces that are not there are left out. It looks in the calling
// thread's network namespace.
func Underlay(exits set.Names) (set.Prefixes, error) {
	var prefixes []netip.Prefix
	var errs []error
	for name := range exits.All() {
		link, err := net.InterfaceByName(name)
		if err != nil {
			continue
		}
		addresses, err := link.Addrs()
		if err != nil {
			errs = append(errs, fmt.Errorf("list addresses of %s: %w", name, err))
		}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				prefixes = append(prefixes, p)
			}
		}
	}
	return set.NewPrefixes(prefixes...), errors.Join(errs...)
}
