package tun

import (
	"errors"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/offload"
)

// Some kernels refuse super-packets with EINVAL although they grant the offload: Linux 6.6.44 and
// 6.1.103 those with a short last segment (tailscale/tailscale#13041), vendor kernels of network
// storage all of them (qdm12/gluetun#3424). A refused super-packet is cut and written again,
// packet by packet, so that none is lost; and after refusals in a row, the caller is to stop
// joining such packets: see Joins.

// refusalsInARow is after how many refusals, without an accepted super-packet of the same shape in
// between, joining stops: a single malformed packet from a peer must not slow the others down.
const refusalsInARow = 3

// acceptance is what the kernel has said of super-packets of a shape.
type acceptance struct {
	row     int         // refusals since the last accepted super-packet; guarded by Device.mu
	stopped atomic.Bool // joining is to stop, for good
}

// note counts an answer of the kernel.
func (a *acceptance) note(refused bool) {
	if !refused {
		a.row = 0
		return
	}
	if a.row++; a.row >= refusalsInARow {
		a.stopped.Store(true)
	}
}

// Joins reports whether the kernel takes super-packets, and whether it takes super-packets whose
// last segment is shorter than the others.
func (t *Device) Joins() (any, short bool) {
	any = !t.full.stopped.Load()
	return any, any && !t.short.stopped.Load()
}

// SuperPacketsRefused returns how many super-packets the kernel has refused.
func (t *Device) SuperPacketsRefused() uint64 { return t.refused.Load() }

// Write hands a packet to the kernel. The pieces together are the packet, virtio header first. An
// error means that the interface does not take the packet, because it is down or the packet is
// too large.
func (t *Device) Write(pieces [][]byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.write(pieces)
	h := offload.Decode(pieces[0])
	if h.Type == unix.VIRTIO_NET_HDR_GSO_NONE || (err != nil && !errors.Is(err, unix.EINVAL)) {
		return err
	}
	shape := &t.full
	if isShort(h, pieces) {
		shape = &t.short
	}
	shape.note(err != nil)
	if err == nil {
		return nil
	}
	t.refused.Add(1)
	return t.writeSegments(h, pieces)
}

// isShort reports whether the last segment of a super-packet is shorter than the others.
func isShort(h offload.Header, pieces [][]byte) bool {
	payload := -int(h.HeaderLen)
	for _, p := range pieces[1:] {
		payload += len(p)
	}
	return h.SegmentSize != 0 && payload%int(h.SegmentSize) != 0
}

// writeSegments cuts a super-packet and writes the packets. The caller holds mu.
func (t *Device) writeSegments(h offload.Header, pieces [][]byte) (err error) {
	t.copied = t.copied[:0]
	for _, p := range pieces[1:] {
		t.copied = append(t.copied, p...)
	}
	if err := t.split.Reset(h, t.copied); err != nil {
		return err
	}
	var single [offload.HeaderSize]byte // "a single packet, its checksum complete"
	for segment, more := t.split.Next(); more; segment, more = t.split.Next() {
		err = errors.Join(err, t.write([][]byte{single[:], segment}))
	}
	return err
}

// write hands a packet to the kernel once. The caller holds mu.
func (t *Device) write(pieces [][]byte) error {
	t.vector = t.vector[:0]
	for _, p := range pieces {
		if len(p) > 0 {
			v := unix.Iovec{Base: &p[0]}
			v.SetLen(len(p))
			t.vector = append(t.vector, v)
		}
	}
	if err := t.raw.Write(t.writeFn); err != nil {
		return err
	}
	return t.outErr
}

// writeNow writes a packet: a TUN device takes or drops it at once, and never makes a writer wait.
func (t *Device) writeNow(fd uintptr) bool {
	t.outErr = t.writev(fd, t.vector)
	return true
}

// writev is the system call. It is raw for the reason at conn's sendmmsg, where the benchmark is named
// and the condition under which it becomes a plain call.
func writev(fd uintptr, vector []unix.Iovec) error {
	_, _, errno := unix.RawSyscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&vector[0])), uintptr(len(vector)))
	if errno != 0 {
		return errno
	}
	return nil
}
