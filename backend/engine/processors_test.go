package engine

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/vishvananda/netlink"
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

func TestPathThatNobodyTookGoesOnWithAllProcessors(t *testing.T) {
	all := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(all)
	s := &station{o: Options{Iface: "narrow0", Kind: Loden, Queues: 1, Log: zerolog.Nop()}}
	var err error
	if s.path, err = s.fresh(); err != nil {
		t.Fatal(err)
	}
	s.processors = narrow()
	defer s.processors.stop()
	left, files, err := s.path.(leaver).Leave()
	if err != nil {
		t.Fatal(err)
	}
	defer left.Wipe()
	if err := s.goOn(left, files); err != nil {
		t.Fatal(err)
	}
	defer func() {
		s.path.Close()
		if link, err := netlink.LinkByName("narrow0"); err != nil || netlink.LinkDel(link) != nil {
			t.Error("the interface is not left")
		}
	}()
	if n := runtime.GOMAXPROCS(0); n != 4 { // by them it has counted its hands
		t.Errorf("%d processors, want 4", n)
	}
}
