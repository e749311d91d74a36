// Package dump owns the answer to a torn netlink dump: the kernel lists objects in several
// messages, and marks the list when an object changed between two of them
// (NLM_F_DUMP_INTR, Documentation/userspace-api/netlink/intro.rst). It knows no kind of object.
package dump

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// attempts bounds the retries: on a host where objects change all the time, an inconsistent
// list at last is better than no list.
const attempts = 5

// Whole calls list until the kernel gave a list that no change interrupted, at most five
// times. The last list is returned with its error, which is netlink.ErrDumpInterrupted when
// all five were torn. Any other error ends the retries at once.
func Whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range attempts {
		all, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, err
}
