// Package linkwatch owns the question "did anything about this interface change?". It says
// that something did, never what: the reader lists the kernel again. It knows nothing of
// WireGuard.
package linkwatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls changed whenever the interface with that name, or an address on it, is made,
// altered or deleted, and whenever the kernel had to drop announcements; and once before
// all that, as soon as it hears: what happened until then was announced to nobody. The
// interface need not exist. Watch blocks until ctx ends, and returns nil then. changed runs
// on Watch's goroutine, so it must be quick; announcements of the network namespace that
// Watch was called in count.
func Watch(ctx context.Context, name string, changed func()) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
	})
	if err != nil {
		return fmt.Errorf("watch interface %s: %w", name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if stop() {
			_ = conn.Close()
		}
	}()
	link := tracked{name: name}
	if i, err := net.InterfaceByName(name); err == nil {
		link.index = uint32(i.Index)
	}
	changed()
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // announcements were lost: assume one was about us
			changed()
			continue
		case err != nil:
			return fmt.Errorf("watch interface %s: %w", name, err)
		}
		if link.concerned(messages) {
			changed()
		}
	}
}

// tracked is the interface being watched. Address announcements name it by index only.
type tracked struct {
	name  string
	index uint32 // 0 while it does not exist
}

// concerned reports whether any message is about the interface, and learns its index.
func (t *tracked) concerned(messages []netlink.Message) bool {
	hit := false
	for _, m := range messages {
		switch m.Header.Type {
		case unix.RTM_NEWLINK, unix.RTM_DELLINK:
			hit = t.link(m) || hit
		case unix.RTM_NEWADDR, unix.RTM_DELADDR: // struct ifaddrmsg: the index is its last member
			hit = len(m.Data) >= unix.SizeofIfAddrmsg && t.index != 0 && binary.NativeEndian.Uint32(m.Data[4:]) == t.index || hit
		}
	}
	return hit
}

// link reports whether a link message is about the interface. A renamed interface counts
// once more, by its index, and is forgotten then.
func (t *tracked) link(m netlink.Message) bool {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return false
	}
	index := binary.NativeEndian.Uint32(m.Data[4:]) // struct ifinfomsg: family, pad, type, index
	named := linkName(m.Data[unix.SizeofIfInfomsg:]) == t.name
	known := index == t.index
	switch {
	case named && m.Header.Type == unix.RTM_NEWLINK:
		t.index = index
	case known:
		t.index = 0
	}
	return named || known
}

// linkName returns IFLA_IFNAME of a link message's attributes, or "" when there is none.
func linkName(attributes []byte) string {
	d, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return ""
	}
	for d.Next() {
		if d.Type() == unix.IFLA_IFNAME {
			return d.String()
		}
	}
	return ""
}
