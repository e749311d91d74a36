package network

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls notify when the kernel announces that one of our routes went, or that
// addresses, default routes or the MTU of an interface of the machine changed, until ctx
// ends; then it returns nil. notify must not block. A subscription that overran is taken anew, with a notify, since
// what was lost is unknown.
func Watch(ctx context.Context, notify func()) error {
	for {
		if err := watchOnce(ctx, notify); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(resubscribe):
			notify()
		}
	}
}

// resubscribe is the pause before a lost subscription is taken anew.
const resubscribe = time.Second

// watchOnce watches until ctx ends or a subscription overruns.
func watchOnce(ctx context.Context, notify func()) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	routes, addrs, links := make(chan netlink.RouteUpdate, 64), make(chan netlink.AddrUpdate, 64), make(chan netlink.LinkUpdate, 64)
	if err := netlink.RouteSubscribe(routes, ctx.Done()); err != nil {
		return fmt.Errorf("watch routes: %w", err)
	}
	defer drain(routes)
	if err := netlink.AddrSubscribe(addrs, ctx.Done()); err != nil {
		stop()
		return fmt.Errorf("watch addresses: %w", err)
	}
	defer drain(addrs)
	if err := netlink.LinkSubscribeWithOptions(links, ctx.Done(), netlink.LinkSubscribeOptions{ListExisting: true}); err != nil {
		stop()
		return fmt.Errorf("watch links: %w", err)
	}
	defer drain(links)
	defer stop()
	seen := mtus{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case r, ok := <-routes:
			if !ok {
				return nil
			}
			if concerns(r) {
				notify()
			}
		case _, ok := <-addrs:
			if !ok {
				return nil
			}
			notify()
		case l, ok := <-links:
			if !ok {
				return nil
			}
			if seen.changed(l) {
				notify()
			}
		}
	}
}

// mtus is the last MTU, in bytes, that was announced for each interface index.
type mtus map[int32]int

// changed notes an announcement and reports whether a known interface has another MTU now.
// All the rest that happens to links, such as pods that come and go, is no reason to look.
func (m mtus) changed(l netlink.LinkUpdate) bool {
	mtu := l.Attrs().MTU
	before, known := m[l.Index]
	if l.Header.Type == unix.RTM_DELLINK {
		delete(m, l.Index)
		return false
	}
	m[l.Index] = mtu
	return known && before != mtu
}

// drain empties a subscription that was told to stop until its goroutine has closed it.
func drain[T any](c <-chan T) {
	for range c {
		continue
	}
}

// concerns reports whether a route update can matter to a pass: one of ours that went, or a
// default route.
func concerns(r netlink.RouteUpdate) bool {
	if r.Table != unix.RT_TABLE_MAIN {
		return false
	}
	return r.Protocol == protocol && r.Type == unix.RTM_DELROUTE || r.Dst == nil || isDefault(r.Dst)
}
