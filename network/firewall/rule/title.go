package rule

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/loden-net/loden/config/opt"
)

// ParseScope reads the text of Scope.String. Any other text is no scope: another program may have
// written it.
func ParseScope(text string) opt.Option[Scope] {
	words := strings.Fields(text)
	if len(words) != 2 {
		return opt.None[Scope]()
	}
	network, err1 := netip.ParsePrefix(words[0])
	subnet, err2 := netip.ParsePrefix(words[1])
	s := Scope{Network: network, Subnet: subnet}
	if err1 != nil || err2 != nil || !s.Valid() {
		return opt.None[Scope]()
	}
	return opt.Some(s)
}

// title names the place in the comment of the jump to a list.
func (p Place) title() string { return "loden " + p.String() }

// Title returns the comment of the jump to a list: it holds the scope, so that the next
// start can read the previous scope from the kernel.
func (l List) Title() string { return fmt.Sprintf("%s %s", l.Place.title(), l.Scope) }

// ParseTitle reads the scope from a comment that Title wrote for the place.
func ParseTitle(p Place, comment string) opt.Option[Scope] {
	rest, ok := strings.CutPrefix(comment, p.title()+" ")
	if !ok {
		return opt.None[Scope]()
	}
	return ParseScope(rest)
}
