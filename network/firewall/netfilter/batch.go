package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
)

// Batch is a list of removals that happen all or none. The zero value is empty.
type Batch struct{ msgs []netlink.Message }

// Len returns how many removals the batch holds.
func (b *Batch) Len() int { return len(b.msgs) }

func (b *Batch) add(kind uint16, f opt.Family, attrs ...netlink.Attribute) {
	data, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		return // impossible: only an attribute of 64 KiB cannot be written
	}
	b.msgs = append(b.msgs, request(kind, familyNumber(f), netlink.Request|netlink.Acknowledge, data))
}

// DeleteTable removes a table and all in it.
func (b *Batch) DeleteTable(f opt.Family, table string) {
	b.add(unix.NFT_MSG_DELTABLE, f, netlink.Attribute{Type: unix.NFTA_TABLE_NAME, Data: cString(table)})
}

// DeleteRule removes one rule by its handle.
func (b *Batch) DeleteRule(f opt.Family, table, chain string, handle uint64) {
	b.add(unix.NFT_MSG_DELRULE, f,
		netlink.Attribute{Type: unix.NFTA_RULE_TABLE, Data: cString(table)},
		netlink.Attribute{Type: unix.NFTA_RULE_CHAIN, Data: cString(chain)},
		netlink.Attribute{Type: unix.NFTA_RULE_HANDLE, Data: binary.BigEndian.AppendUint64(nil, handle)},
	)
}

// FlushChain removes every rule of a chain.
func (b *Batch) FlushChain(f opt.Family, table, chain string) {
	b.add(unix.NFT_MSG_DELRULE, f,
		netlink.Attribute{Type: unix.NFTA_RULE_TABLE, Data: cString(table)},
		netlink.Attribute{Type: unix.NFTA_RULE_CHAIN, Data: cString(chain)},
	)
}

// DeleteChain removes a chain that is empty and that no rule refers to.
func (b *Batch) DeleteChain(f opt.Family, table, chain string) {
	b.add(unix.NFT_MSG_DELCHAIN, f,
		netlink.Attribute{Type: unix.NFTA_CHAIN_TABLE, Data: cString(table)},
		netlink.Attribute{Type: unix.NFTA_CHAIN_NAME, Data: cString(chain)},
	)
}

// ErrChanged is returned by Commit when nf_tables is not of the expected generation.
var ErrChanged = errors.New("nf_tables changed meanwhile")

// Commit applies the batch if nf_tables is still of the given generation.
func (c *Conn) Commit(b *Batch, generation uint32) error {
	id, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFNL_BATCH_GENID, Data: binary.BigEndian.AppendUint32(nil, generation)},
	})
	if err != nil {
		return err
	}
	msgs := append([]netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN, id)}, b.msgs...)
	msgs = append(msgs, edge(unix.NFNL_MSG_BATCH_END, nil))
	if _, err := c.c.SendMessages(msgs); err != nil {
		return fmt.Errorf("send removals to nf_tables: %w", err)
	}
	// Every removal is acknowledged, also when another one fails; the first error counts.
	// A batch of a past generation is refused as a whole, with one answer.
	var first error
	for range b.msgs {
		_, err := c.c.Receive()
		if errors.Is(err, unix.ERESTART) {
			return ErrChanged
		}
		if err != nil && first == nil {
			first = fmt.Errorf("remove from nf_tables: %w", err)
		}
	}
	return first
}

// edge is the message that opens or closes a batch.
func edge(kind uint16, attrs []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(kind), Flags: netlink.Request},
		Data:   append([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}, attrs...),
	}
}
