// Package linkwatch owns the question "did anything about this interface change?". It reports
// that a change happened and leaves the reading to its caller, which lists the kernel's state
// again. It knows no WireGuard.
package linkwatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch calls changed whenever the interface with that name, or an address on it, is made,
// altered or deleted, and whenever the kernel had to drop announcements. Announcements about
// other interfaces cause no call. The first call comes as soon as the watch has begun, because
// earlier changes were not announced to it. The interface need not exist. Watch blocks until
// ctx ends, and returns nil then. changed runs on Watch's goroutine, so it must be quick. The
// watch covers the network namespace of the calling thread.
func Watch(ctx context.Context, name string, changed func()) error {
	conn, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return fmt.Errorf("watch interface %s: %w", name, err)
	}
	stop := context.AfterFunc(ctx, conn.Close)
	defer func() {
		if stop() {
			conn.Close()
		}
	}()
	link := tracked{name: name}
	if i, err := net.InterfaceByName(name); err == nil {
		link.index = uint32(i.Index)
	}
	changed()
	for {
		messages, _, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // announcements were lost: assume that they named this interface
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

// tracked is the watched interface. Address announcements name it by index only.
type tracked struct {
	name  string
	index uint32 // 0 while it does not exist
}

// concerned reports whether any message is about the interface, and learns its index.
func (t *tracked) concerned(messages []syscall.NetlinkMessage) bool {
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
func (t *tracked) link(m syscall.NetlinkMessage) bool {
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

// linkName returns IFLA_IFNAME of a link message's attributes, or "" without that attribute.
func linkName(attributes []byte) string {
	all, err := nl.ParseRouteAttr(attributes)
	if err != nil {
		return ""
	}
	for _, a := range all {
		if a.Attr.Type == unix.IFLA_IFNAME {
			return unix.ByteSliceToString(a.Value)
		}
	}
	return ""
}
