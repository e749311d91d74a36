package sandbox

import (
	"errors"
	"fmt"
)

// Switch joins any number of hosts like an Ethernet switch: a bridge in a namespace of its
// own, with a port for each host plugged in.
//
//	host a: eth0 ──┐
//	host b: eth0 ──┤ bridge "switch" in the namespace of the switch ── Tap
//	host c: eth0 ──┘
type Switch struct {
	host *Host
}

// bridgeName is the bridge inside a switch's namespace; every other link there is a port.
const bridgeName = "switch"

// NewSwitch makes a switch without ports. It answers nothing itself: it has no address and
// no IPv6. Call Close, or let it end with the sandbox.
func NewSwitch(name string) (*Switch, error) {
	h, err := NewHost(name)
	if err != nil {
		return nil, err
	}
	s := &Switch{host: h}
	return s, errors.Join(
		h.Run("sh", "-c", "for c in all default; do echo 1 >/proc/sys/net/ipv6/conf/$c/disable_ipv6; done"),
		h.Run("ip", "link", "add", bridgeName, "type", "bridge", "mcast_snooping", "0"),
		h.Run("ip", "link", "set", "dev", bridgeName, "up"),
	)
}

// Plug joins a host to the switch: iface on the host, up, and a port named like the host.
func (s *Switch) Plug(h *Host, iface string) error {
	if err := Wire(h, iface, s.host, h.Name); err != nil {
		return err
	}
	return s.host.IP("link set dev " + h.Name + " master " + bridgeName)
}

// Unplug cuts a host off by taking its port down; the host sees its carrier go. Replug
// joins it again.
func (s *Switch) Unplug(h *Host) error { return s.host.Run("ip", "link", "set", "dev", h.Name, "down") }

// Replug undoes Unplug.
func (s *Switch) Replug(h *Host) error { return s.host.Run("ip", "link", "set", "dev", h.Name, "up") }

// Close removes the switch; the hosts' ends of its wires go with it.
func (s *Switch) Close() error {
	if err := s.host.Close(); err != nil {
		return fmt.Errorf("remove switch: %w", err)
	}
	return nil
}
