package engine

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

func TestQueuesGrowWithTheProcessors(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 1, 4: 1, 5: 2, 8: 2, 9: 3, 16: 4, 31: 8, 32: 8, 256: 8} {
		if got := queuesFor(n); got != want {
			t.Errorf("%d processors: %d queues, want %d", n, got, want)
		}
	}
}

// TestDeviceInUseIsNotShared matters for several queues, which two processes could share.
func TestDeviceInUseIsNotShared(t *testing.T) {
	for _, queues := range []int{1, 4} {
		t.Run(fmt.Sprintf("%d queues", queues), func(t *testing.T) {
			files, err := openTUN("shared0", queues)
			if err != nil {
				t.Fatal(err)
			}
			for _, wanted := range []int{1, 4} {
				if second, err := openTUN("shared0", wanted); !errors.Is(err, unix.EBUSY) {
					t.Errorf("%d queues of it: %v, want EBUSY", wanted, err)
					second.Close()
				}
			}
			files.Close()
			again, err := openTUN("shared0", queues)
			if err != nil {
				t.Fatal(err)
			}
			again.Close()
		})
	}
}
