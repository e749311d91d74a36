package wg

import (
	"fmt"
	"strings"

	"github.com/loden-net/loden/backend/engine/wg/conn"
)

// Offloads is a set of the ways in which the kernel moves several packets at a time for a device.
// The zero value is empty.
type Offloads uint8

// The offloads.
const (
	TUNReceive Offloads = 1 << iota // packets from the TUN device come as super-packets
	TUNSend                         // packets of a flow go to the TUN device as super-packets
	UDPReceive                      // datagrams of a sender come joined (UDP_GRO)
	UDPSend                         // datagrams to a peer leave as trains (UDP_SEGMENT)
)

// offloadNames are the names of the offloads, in the order of their bits.
func offloadNames() [4]string { return [4]string{"tun-rx", "tun-tx", "udp-rx", "udp-tx"} }

// ParseOffloads reads a set: names separated by commas, of tun-rx, tun-tx, udp-rx and udp-tx, or
// the empty text.
func ParseOffloads(text string) (set Offloads, err error) {
	if text == "" {
		return 0, nil
	}
next:
	for word := range strings.SplitSeq(text, ",") {
		for bit, name := range offloadNames() {
			if strings.TrimSpace(word) == name {
				set |= 1 << bit
				continue next
			}
		}
		return 0, fmt.Errorf("offload %q: choose among tun-rx, tun-tx, udp-rx and udp-tx, separated by commas", word)
	}
	return set, nil
}

// String returns the set as ParseOffloads reads it.
func (o Offloads) String() string {
	var words []string
	for bit, name := range offloadNames() {
		if o&(1<<bit) != 0 {
			words = append(words, name)
		}
	}
	return strings.Join(words, ",")
}

// DisableOffloads turns the offloads of the set off, for kernels and network devices that corrupt
// what they cut or join. Call it before Run or Start. An error means that the TUN device refused.
func (d *Device) DisableOffloads(off Offloads) error {
	d.noOffload = off
	if k, ok := d.tunnel.(kernelTUN); ok && off&TUNReceive != 0 {
		if err := k.DisableReceiveOffload(); err != nil {
			return err
		}
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	if b := d.sockets.Load(); b != nil { // of the process before
		d.applyOffloads(*b)
	}
	return nil
}

// offloadSwitch is a socket whose offloads can be turned off: *conn.Socket.
type offloadSwitch interface {
	DisableSegmentation()
	DisableJoining() error
	SegmentationRefused() bool
	PathsChanged()
	TrainsRefused() uint64
}

// switches returns the open sockets whose offloads can be turned off.
func (d *Device) switches() (out []offloadSwitch) {
	if b := d.sockets.Load(); b != nil {
		for _, s := range b.all() {
			if k, ok := s.(offloadSwitch); ok {
				out = append(out, k)
			}
		}
	}
	return out
}

// pathsChanged makes the sockets try trains again to peers whose path was too narrow for them.
func (d *Device) pathsChanged() {
	for _, s := range d.switches() {
		s.PathsChanged()
	}
}

// trainsRefused returns how many trains were refused for the MTU of their path.
func (d *Device) trainsRefused() (n uint64) {
	for _, s := range d.switches() {
		n += s.TrainsRefused()
	}
	return n
}

// noteNarrowPath says once that trains to a peer are refused.
func (d *Device) noteNarrowPath(t *conn.Outgoing) {
	if d.narrowLogged.Swap(true) {
		return
	}
	d.log.Warn().Stringer("to", t.To.Addr()).Int("bytes", t.Segment).Msg(
		"the path to a peer has a smaller MTU than the datagrams: the kernel fragments them one by one, which is slower: lower the MTU of the WireGuard interface")
}

// applyOffloads turns off the offloads of sockets that the device has just got.
func (d *Device) applyOffloads(b bound) {
	for _, s := range b.all() {
		k, ok := s.(offloadSwitch)
		if !ok {
			continue
		}
		if d.noOffload&UDPSend != 0 {
			k.DisableSegmentation()
		}
		if d.noOffload&UDPReceive != 0 {
			if err := k.DisableJoining(); err != nil {
				d.log.Warn().Err(err).Msg("UDP receive offload stays on")
			}
		}
	}
}

// joins reports whether packets may be joined for the TUN device, and whether the last packet of
// a super-packet may be shorter than the others. It logs once when the kernel has refused.
func (d *Device) joins() (full, short bool) {
	if d.noOffload&TUNSend != 0 {
		return false, false
	}
	k, ok := d.tunnel.(kernelTUN)
	if !ok {
		return true, true
	}
	full, short = k.Joins()
	if !short && !d.refusalLogged.Swap(true) {
		d.log.Warn().Bool("all", !full).Msg("the kernel refuses joined packets on the TUN device: they are written singly, which is slower: use another kernel")
	}
	return full, short
}

// offloadStates returns the state of each offload.
func (d *Device) offloadStates() map[string]string {
	states := map[string]string{}
	for bit, name := range offloadNames() {
		states[name] = "on"
		if d.noOffload&(1<<bit) != 0 {
			states[name] = "off"
		}
	}
	if full, short := d.joins(); states["tun-tx"] == "on" && !(full && short) {
		states["tun-tx"] = "refused"
	}
	for _, s := range d.switches() {
		if states["udp-tx"] == "on" && s.SegmentationRefused() {
			states["udp-tx"] = "refused"
		}
	}
	return states
}
