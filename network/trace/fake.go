package trace

import (
	"io/fs"
	"net/netip"

	"github.com/loden-net/loden/config/opt"
)

// Fake is a Kernel in memory, for tests of packages that use trace. The zero value is a host
// without links and routes. Fill the fields before use.
type Fake struct {
	Routes      map[Query]Route // a query that is missing is answered by the zero Route
	RuleList    []Rule
	LinkList    []Link
	Neighbours  map[netip.Addr]Neighbour
	Settings    map[string]string // by path below /proc/sys
	LookupFault error
}

// Lookup answers from Routes.
func (f *Fake) Lookup(q Query) (Route, error) { return f.Routes[q], f.LookupFault }

// Rules returns RuleList.
func (f *Fake) Rules(opt.Family) ([]Rule, error) { return f.RuleList, nil }

// Links returns LinkList.
func (f *Fake) Links() ([]Link, error) { return f.LinkList, nil }

// Neighbour answers from Neighbours.
func (f *Fake) Neighbour(_ string, a netip.Addr) (Neighbour, error) { return f.Neighbours[a], nil }

// Sysctl answers from Settings.
func (f *Fake) Sysctl(path string) (string, error) {
	if v, ok := f.Settings[path]; ok {
		return v, nil
	}
	return "", fs.ErrNotExist
}
