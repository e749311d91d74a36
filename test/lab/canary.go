package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/loden-net/loden/backend/engine/wg/offload"
	"github.com/loden-net/loden/config/opt"
)

// canaryPrefix starts the text of a canary: a frame in clear that the lab sends itself, so
// that a wire on which nothing in clear is seen has been seen to show it.
const canaryPrefix = "LODEN-LAB-CANARY-"

// canaryLen is the length of a canary's text: the prefix and 16 hexadecimal digits.
const canaryLen = len(canaryPrefix) + 16

// canaryIn returns the canary's text when frame is a canary.
func canaryIn(frame []byte) (string, bool) {
	at := bytes.Index(frame, []byte(canaryPrefix))
	if at < 0 || len(frame) < at+canaryLen {
		return "", false
	}
	return string(frame[at : at+canaryLen]), true
}

// Sync puts canaries on the wire and waits until every one was seen and taken for what it
// is: overlay addresses of each family, and pod traffic in clear between other addresses.
// Frames are read in the order of their arrival, so what was sent before has been counted
// when Sync returns.
func (w *Wire) Sync(ctx context.Context) error {
	v4, v6 := overlay().V4, overlay().V6
	from4, _ := v4.Get()
	from6, _ := v6.Get()
	for _, c := range []struct{ addr, text string }{
		{address(from4, 0xfe01).Addr().String(), ""},
		{address(from6, 0xfe01).Addr().String(), ""},
		{"192.0.2.1", marker},
	} {
		if err := w.canary(ctx, netip.MustParseAddr(c.addr), c.text); err != nil {
			return err
		}
	}
	return nil
}

// canary sends a canary with addr at both ends and waits until the wire counted it as clear.
func (w *Wire) canary(ctx context.Context, addr netip.Addr, text string) error {
	name := fmt.Sprintf("%s%016x", canaryPrefix, rand.Uint64())
	if err := w.host.Send(w.iface, canaryFrame(addr, name+text)); err != nil {
		return fmt.Errorf("send canary: %w", err)
	}
	return until(ctx, nil, "the canary on the wire", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.err != nil {
			return w.err
		}
		if w.canaries[name] == 0 {
			return fmt.Errorf("a packet of %s in clear was not seen as such", addr)
		}
		return nil
	})
}

// canaryFrame returns an Ethernet frame to nobody with a UDP packet from addr to addr.
func canaryFrame(addr netip.Addr, text string) []byte {
	udp := binary.BigEndian.AppendUint16(nil, 9) // discard, RFC 863
	udp = binary.BigEndian.AppendUint16(udp, 9)
	udp = binary.BigEndian.AppendUint16(udp, uint16(8+len(text)))
	udp = append(udp, 0, 0) // no checksum
	udp = append(udp, text...)
	nobody := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2} // locally administered addresses
	if opt.FamilyOf(addr) == opt.V6 {
		frame := append(nobody, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(udp)), 17, 64)
		frame = append(append(frame, addr.AsSlice()...), addr.AsSlice()...)
		return append(frame, udp...)
	}
	header := append([]byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, 17, 0, 0}, addr.AsSlice()...)
	header = append(header, addr.AsSlice()...)
	binary.BigEndian.PutUint16(header[10:], ^offload.Sum(header, 0))
	return append(append(append(nobody, 0x08, 0x00), header...), udp...)
}
