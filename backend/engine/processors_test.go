package engine

import (
	"net"
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
		p := adaptProcessors()
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

func TestDataPathResumesWithAllProcessorsAfterAFailedHandOver(t *testing.T) {
	all := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(all)
	s := &instance{o: Options{Iface: "narrow0", Kind: Loden, RunDir: t.TempDir(), Queues: 1, Log: zerolog.Nop()}}
	var err error
	if s.path, err = s.newPath(); err != nil {
		t.Fatal(err)
	}
	s.processors = adaptProcessors()
	defer s.processors.stop()
	left, files, err := s.path.(resumable).HandOver()
	if err != nil {
		t.Fatal(err)
	}
	defer left.Wipe()
	if err := s.resumePath(left, files); err != nil {
		t.Fatal(err)
	}
	defer func() {
		s.path.Close()
		s.stamps.Close()
		if link, err := netlink.LinkByName("narrow0"); err != nil || netlink.LinkDel(link) != nil {
			t.Error("the interface is gone")
		}
	}()
	if n := runtime.GOMAXPROCS(0); n != 4 { // the data path sized its worker pools by that number
		t.Errorf("%d processors, want 4", n)
	}
}

// BenchmarkWakeUp measures how long a datagram takes between two sockets of this process whose
// readers wait in Go's poller, with one processor and with all. While all processors are slower, on an idle machine,
// by more than 10 %, processors.go earns its place.
func BenchmarkWakeUp(b *testing.B) {
	for name, n := range map[string]int{"one": 1, "all": runtime.NumCPU()} {
		b.Run(name, func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(n))
			a, z := loopback(b), loopback(b)
			go func() { // echo
				p := make([]byte, 64)
				for {
					size, from, err := z.ReadFromUDPAddrPort(p)
					if err != nil {
						return
					}
					if _, err := z.WriteToUDPAddrPort(p[:size], from); err != nil {
						return
					}
				}
			}()
			p, to := make([]byte, 64), z.LocalAddr().(*net.UDPAddr).AddrPort()
			for b.Loop() {
				if _, err := a.WriteToUDPAddrPort(p, to); err != nil {
					b.Fatal(err)
				}
				if _, _, err := a.ReadFromUDPAddrPort(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// loopback returns a UDP socket that is closed at the end of the benchmark.
func loopback(b *testing.B) *net.UDPConn {
	b.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}
