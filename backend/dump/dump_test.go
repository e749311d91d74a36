package dump_test

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/loden-net/loden/backend/dump"
)

func TestTornListsAreAskedForAgainUpToFiveTimes(t *testing.T) {
	refused := errors.New("refused")
	for name, c := range map[string]struct {
		torn  int   // lists that a change interrupts before a whole list
		then  error // the error of the list after these
		calls int
		want  error
	}{
		"a whole list":          {0, nil, 1, nil},
		"torn twice":            {2, nil, 3, nil},
		"torn always":           {99, nil, 5, netlink.ErrDumpInterrupted},
		"refused after a torn":  {1, refused, 2, refused},
		"refused at the outset": {0, refused, 1, refused},
	} {
		calls := 0
		list, err := dump.Whole(func() ([]int, error) {
			calls++
			if calls <= c.torn {
				return []int{0}, netlink.ErrDumpInterrupted
			}
			return []int{calls}, c.then
		})
		if calls != c.calls || !errors.Is(err, c.want) || len(list) != 1 {
			t.Errorf("%s: %d calls, %v, %v; want %d calls, %v", name, calls, list, err, c.calls, c.want)
		}
	}
}
