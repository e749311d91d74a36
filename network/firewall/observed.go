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

// parts lists the parts in the order in which they are compared.
func parts() [2]string { return [2]string{partMasq, partGuard} }

// places lists the places of a part.
func places(part string) [2]rule.Place {
	if part == partGuard {
		return [2]rule.Place{rule.GuardIn, rule.GuardOut}
	}
	return [2]rule.Place{rule.Postrouting, rule.Forward}
}

// observed is the state of a part of a family that a driver read from the kernel, beside the desired scope.
type observed struct {
	family            opt.Family
	part              string
	previous, current opt.Option[Scope] // of the rules in the kernel, and of the desired rules
	inSync            bool              // the kernel holds exactly the desired rules, and they take effect
	unreached         bool              // the rules are there, but a rule before them decides every packet
	flannels          bool              // flannel's rules go in the same transaction
}

// verb says how to get from the previous scope to the current scope, where the rules are not in sync:
//
//	previous  current
//	none      none     delete: rules without a readable scope are there
//	none      some     add
//	same      same     replace: the rules differ
//	some      another  replace
//	some      none     delete
//
// flannel followed a pointer here, which was nil at the first start of every IPv6 node (flannel issue
// 1968).
func (o observed) verb() string {
	switch {
	case !o.current.Present():
		return verbDelete
	case !o.previous.Present():
		return verbAdd
	}
	return verbReplace
}

// change names the change that brings a part from the observed to the desired rules; ok is false when
// they are in sync.
func (o observed) change(run func(context.Context) error) (c diff.Change, ok bool) {
	if o.inSync {
		return diff.Change{}, false
	}
	verb := o.verb()
	object := o.family.String()
	switch verb {
	case verbAdd:
		object += scopeText(o.current)
	case verbDelete:
		object += scopeText(o.previous)
	case verbReplace:
		object += scopeText(o.current)
		switch {
		case o.previous != o.current:
			object += ", was" + scopeText(o.previous)
		case o.unreached:
			object += ", because another program's rule stood before these rules and decided every packet"
		default:
			object += ", because the rules in the kernel differ from these settings"
		}
	}
	if o.flannels {
		object += ", taking over from flannel"
	}
	return diff.Change{Part: o.part, Verb: verb, Object: object, Run: run}, true
}

func scopeText(scope opt.Option[Scope]) string {
	s, ok := scope.Get()
	if !ok {
		return ""
	}
	return fmt.Sprintf(" %s in %s", s.Subnet, s.Network)
}
