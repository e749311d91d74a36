package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/offload"
)

// openFile is a file that takes every write at once.
type openFile struct{ syscall.RawConn }

func (openFile) Write(f func(uintptr) bool) error {
	if !f(0) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// superPacket returns a UDP super-packet of segments of 100 bytes, in pieces, virtio header first.
func superPacket(payload int) [][]byte {
	pkt := make([]byte, 28+payload)
	pkt[0], pkt[8], pkt[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(pkt[2:], uint16(len(pkt)))
	for i := range payload {
		pkt[28+i] = byte(i)
	}
	header := make([]byte, offload.HeaderSize)
	offload.Header{NeedsChecksum: true, Type: unix.VIRTIO_NET_HDR_GSO_UDP_L4, HeaderLen: 28, SegmentSize: 100, ChecksumStart: 20, ChecksumOffset: 6}.Encode(header)
	return [][]byte{header, pkt[:128], pkt[128:]}
}

// kernel records what it takes, and refuses super-packets as a kernel with that defect does.
type kernel struct {
	refuses func(h offload.Header, size int) bool
	taken   [][]byte
	refused int
}

func (k *kernel) writev(_ uintptr, vector []unix.Iovec) error {
	var b []byte
	for _, v := range vector {
		b = append(b, unsafe.Slice(v.Base, v.Len)...)
	}
	h := offload.Decode(b)
	if h.Type != unix.VIRTIO_NET_HDR_GSO_NONE && k.refuses(h, len(b)-offload.HeaderSize) {
		k.refused++
		return unix.EINVAL
	}
	k.taken = append(k.taken, b)
	return nil
}

func newTestDevice(k *kernel) *Device {
	t := &Device{raw: openFile{}, writev: k.writev}
	t.writeFn = t.writeNow
	return t
}

func allSuper(offload.Header, int) bool { return true }

func shortSuper(h offload.Header, size int) bool {
	return (size-int(h.HeaderLen))%int(h.SegmentSize) != 0
}

func TestRefusedSuperPacketIsWrittenPacketByPacket(t *testing.T) {
	k := &kernel{refuses: allSuper}
	d := newTestDevice(k)
	if err := d.Write(superPacket(250)); err != nil {
		t.Fatal(err)
	}
	var want [][]byte
	pieces := superPacket(250)
	var split offload.Split
	if err := split.Reset(offload.Decode(pieces[0]), bytes.Join(pieces[1:], nil)); err != nil {
		t.Fatal(err)
	}
	for seg, more := split.Next(); more; seg, more = split.Next() {
		want = append(want, append(make([]byte, offload.HeaderSize), seg...))
	}
	if len(k.taken) != 3 || len(want) != 3 {
		t.Fatalf("the kernel got %d packets, want 3", len(k.taken))
	}
	for i := range want {
		if !bytes.Equal(k.taken[i], want[i]) {
			t.Errorf("packet %d:\ngot  %x\nwant %x", i, k.taken[i], want[i])
		}
	}
	if d.SuperPacketsRefused() != 1 {
		t.Errorf("%d refusals counted, want 1", d.SuperPacketsRefused())
	}
}

func TestJoiningStopsForTheShapeThatTheKernelRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		refuses    func(offload.Header, int) bool
		any, short bool
	}{
		"all super-packets":   {allSuper, false, false},
		"short last segments": {shortSuper, true, false},
		"no super-packets":    {func(offload.Header, int) bool { return false }, true, true},
		"one packet in a while": {func() func(offload.Header, int) bool {
			n := 0
			return func(offload.Header, int) bool { n++; return n%4 == 0 }
		}(), true, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTestDevice(&kernel{refuses: c.refuses})
			for range 20 {
				for _, payload := range []int{200, 250, 200, 250} {
					if err := d.Write(superPacket(payload)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if any, short := d.Joins(); any != c.any || short != c.short {
				t.Errorf("joins %t, with a short last segment %t; want %t, %t", any, short, c.any, c.short)
			}
		})
	}
}

func TestErrorsOtherThanEINVALAreReported(t *testing.T) {
	d := newTestDevice(&kernel{})
	d.writev = func(uintptr, []unix.Iovec) error { return unix.EIO } // the interface is down
	if err := d.Write(superPacket(250)); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v, want EIO", err)
	}
	if any, short := d.Joins(); !any || !short {
		t.Error("an interface that is down ends joining")
	}
}
