package firewall

import (
	"context"
	"fmt"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/rule"
)

// The parts and verbs of the changes.
const (
	partMasq  = "masq"
	partGuard = "guard"

	verbAdd     = "add"
	verbReplace = "replace"
	verbDelete  = "delete"
)

// places lists the places of a part.
func places(part string) [2]rule.Place {
	if part == partGuard {
		return [2]rule.Place{rule.GuardIn, rule.GuardOut}
	}
	return [2]rule.Place{rule.Postrouting, rule.Forward}
}

// verb says what has to be done between two scopes, none of which need be there:
//
//	previous  current
//	none      none     nothing, but what cannot be read is deleted
//	none      some     add
//	same      same     nothing, or replace where the rules are not as they should be
//	some      another  replace
//	some      none     delete
//
// right says that the rules are exactly as wished. flannel followed a pointer here, which
// was nil at the first start of every IPv6 node (flannel issue 1968).
func verb(previous, current opt.Option[Scope], right bool) string {
	switch {
	case right && previous == current:
		return ""
	case !current.Present():
		return verbDelete
	case !previous.Present():
		return verbAdd
	}
	return verbReplace
}

// found is what a back-end found at the places of one part in one family.
type found struct {
	family            opt.Family
	part              string
	previous, current opt.Option[Scope]
	right             bool // nothing differs
	foreign           bool // flannel's rules go in the same transaction
}

// change names the change that brings a part from what was found to what is wished; ok is
// false when there is none to make.
func (f found) change(run func(context.Context) error) (c diff.Change, ok bool) {
	if f.right {
		return diff.Change{}, false
	}
	v := verb(f.previous, f.current, false)
	object := f.family.String()
	switch v {
	case verbAdd:
		object += scopeText(f.current)
	case verbDelete:
		object += scopeText(f.previous)
	case verbReplace:
		object += scopeText(f.current)
		if f.previous == f.current {
			object += ", not as it should be"
		} else {
			object += ", was" + scopeText(f.previous)
		}
	}
	if f.foreign {
		object += ", taking over from flannel"
	}
	return diff.Change{Part: f.part, Verb: v, Object: object, Run: run}, true
}

func scopeText(scope opt.Option[Scope]) string {
	s, ok := scope.Get()
	if !ok {
		return ""
	}
	return fmt.Sprintf(" %s in %s", s.Subnet, s.Network)
}

// currentScope returns the scope of the first wished list among the places.
func (w wish) currentScope(part string) opt.Option[Scope] {
	for _, p := range places(part) {
		if l, ok := w[p].Get(); ok {
			return opt.Some(l.Scope)
		}
	}
	return opt.None[Scope]()
}
