package netfilter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls notify after every change of nf_tables in which something happened to a
// table and chain that concern is true for; chain is empty when the whole table is meant.
// It blocks until ctx ends and then returns nil. When the kernel had more to say than
// could be held, notify is called too: something may have been missed.
func Watch(ctx context.Context, concern func(table, chain string) bool, notify func()) error {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)})
	if err != nil {
		return fmt.Errorf("watch nf_tables: %w", err)
	}
	defer c.Close()
	// A second Close is harmless; a deadline in the past ends a waiting Receive.
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	pending := false
	for {
		msgs, err := c.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			notify()
			continue
		case err != nil:
			return fmt.Errorf("watch nf_tables: %w", err)
		}
		for _, m := range msgs {
			if kindOf(m) == unix.NFT_MSG_NEWGEN { // the transaction is complete
				if pending {
					notify()
				}
				pending = false
				continue
			}
			table, chain := subject(m)
			pending = pending || concern(table, chain)
		}
	}
}

// kindOf returns the kind of an nf_tables message.
func kindOf(m netlink.Message) uint16 { return uint16(m.Header.Type) & 0xff }

// subject returns the table and chain that a notice is about; both are empty for notices
// about other things.
func subject(m netlink.Message) (table, chain string) {
	a := attributes(m)
	switch kindOf(m) {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE:
		return text(a[unix.NFTA_TABLE_NAME]), ""
	case unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN:
		return text(a[unix.NFTA_CHAIN_TABLE]), text(a[unix.NFTA_CHAIN_NAME])
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		return text(a[unix.NFTA_RULE_TABLE]), text(a[unix.NFTA_RULE_CHAIN])
	}
	return "", ""
}
