// Package offload owns the arithmetic of super-packets: a TCP or UDP packet of up to
// 64 KiB with a virtio header, as a TUN device with segmentation offload gives and takes
// it, and the wire-sized packets it stands for. It computes in place and never waits; it
// knows no devices, no peers and no cryptography.
//
//	TUN ── super-packet ──► Complete / Split ──► wire-sized packets ──► peer
//	TUN ◄─ super-packet ─── Merger ◄──────────── wire-sized packets ◄── peer
package offload

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"
)

// HeaderSize is the size of the virtio header before each packet of the TUN, in bytes:
// struct virtio_net_hdr of linux/virtio_net.h without num_buffers.
const HeaderSize = 1 + 1 + 2 + 2 + 2 + 2

// ErrMalformed is the error for a packet whose headers contradict each other.
var ErrMalformed = errors.New("malformed packet")

// Header is the virtio header: the work on a packet that the kernel left to us, or that we leave
// to the kernel. The zero value says "a single packet, its checksum complete".
type Header struct {
	NeedsChecksum  bool
	Type           uint8  // unix.VIRTIO_NET_HDR_GSO_NONE, _TCPV4, _TCPV6 or _UDP_L4
	HeaderLen      uint16 // of all headers, bytes; a hint only
	SegmentSize    uint16 // payload of each segment, bytes
	ChecksumStart  uint16 // where the transport header begins, bytes
	ChecksumOffset uint16 // of the checksum field from there, bytes
}

// Decode reads a header from b, which holds at least HeaderSize bytes, in the machine's
// byte order as TUN has it.
func Decode(b []byte) Header {
	return Header{
		NeedsChecksum:  b[0]&unix.VIRTIO_NET_HDR_F_NEEDS_CSUM != 0,
		Type:           b[1],
		HeaderLen:      binary.NativeEndian.Uint16(b[2:]),
		SegmentSize:    binary.NativeEndian.Uint16(b[4:]),
		ChecksumStart:  binary.NativeEndian.Uint16(b[6:]),
		ChecksumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
}

// Encode writes h into b, which holds at least HeaderSize bytes.
func (h Header) Encode(b []byte) {
	b[0] = 0
	if h.NeedsChecksum {
		b[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	}
	b[1] = h.Type
	binary.NativeEndian.PutUint16(b[2:], h.HeaderLen)
	binary.NativeEndian.PutUint16(b[4:], h.SegmentSize)
	binary.NativeEndian.PutUint16(b[6:], h.ChecksumStart)
	binary.NativeEndian.PutUint16(b[8:], h.ChecksumOffset)
}
