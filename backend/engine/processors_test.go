package engine

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestProcessorsFollowTheLoad(t *testing.T) {
	all := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(all)
	synctest.Test(t, func(t *testing.T) {
		expect := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			if n := runtime.GOMAXPROCS(0); n != want {
				t.Errorf("%s: %d processors, want %d", when, n, want)
			}
		}
		p := narrow()
		expect("at first", 1)
		p.load()
		expect("with load", 4)
		time.Sleep(loadLasts - time.Millisecond)
		p.load()
		time.Sleep(loadLasts - time.Millisecond)
		expect("while load lasts", 4)
		time.Sleep(2 * time.Millisecond)
		expect("after it", 1)
		p.load()
		expect("with new load", 4)
		p.stop()
		p.load()
		time.Sleep(time.Hour)
		expect("stopped", 4)
	})
}
