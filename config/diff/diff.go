// Package diff owns the difference between an observed and a desired set, and the named
// change that makes a step from the first to the second. It does not know the objects that
// are changed, and imports the standard library only.
package diff

import (
	"context"
	"fmt"
)

// Change is a named step from the observed to the desired state. It is data until Run is
// called: `loden plan` prints the list, the reconciler runs it.
type Change struct {
	Part   string `json:"part"`   // name of the subsystem: firewall, sysctls, device, routes, env, cni
	Verb   string `json:"verb"`   // add, set, delete, replace, ...
	Object string `json:"object"` // the object of the verb, for a reader

	// Run does the step. It may block and is bound by ctx. It is never nil in a Change
	// that a subsystem returns.
	Run func(context.Context) error `json:"-"`
}

// String returns "part: verb object".
func (c Change) String() string { return fmt.Sprintf("%s: %s %s", c.Part, c.Verb, c.Object) }

// Sets returns the members of want that have lacks, and the members of have that want lacks,
// each in its own order and without duplicates. Applying add and then del to have gives want
// as a set; equal sets give two empty results, which is what makes a second apply a no-op.
func Sets[T comparable](have, want []T) (add, del []T) {
	return missing(have, want), missing(want, have)
}

// missing returns the distinct members of list that base lacks.
func missing[T comparable](base, list []T) []T {
	seen := make(map[T]struct{}, len(base)+len(list))
	for _, v := range base {
		seen[v] = struct{}{}
	}
	var out []T
	for _, v := range list {
		if _, ok := seen[v]; ok {
			continue
		}
		seen[v] = struct{}{}
		out = append(out, v)
	}
	return out
}
