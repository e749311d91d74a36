package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
)

// ErrChanged is returned by Commit when nf_tables is not of the expected generation.
var ErrChanged = errors.New("nf_tables changed since it was read")

// Batch is a list of removals, which the kernel makes all together or not at all. The zero value is empty.
type Batch struct{ removals []*nl.NetlinkRequest }

// Len returns how many removals the batch holds.
func (b *Batch) Len() int { return len(b.removals) }

func (b *Batch) add(kind int, f opt.Family, attrs ...*nl.RtAttr) {
	req := request(kind, unix.NLM_F_ACK, uint8(familyOf(f)))
	for _, a := range attrs {
		req.AddData(a)
	}
	b.removals = append(b.removals, req)
}

func name(kind int, text string) *nl.RtAttr { return nl.NewRtAttr(kind, nl.ZeroTerminated(text)) }

// DeleteTable removes a table with its content.
func (b *Batch) DeleteTable(f opt.Family, table string) {
	b.add(unix.NFT_MSG_DELTABLE, f, name(unix.NFTA_TABLE_NAME, table))
}

// DeleteRule removes a rule by its handle.
func (b *Batch) DeleteRule(f opt.Family, table, chain string, handle uint64) {
	b.add(unix.NFT_MSG_DELRULE, f, name(unix.NFTA_RULE_TABLE, table), name(unix.NFTA_RULE_CHAIN, chain),
		nl.NewRtAttr(unix.NFTA_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, handle)))
}

// FlushChain removes every rule of a chain.
func (b *Batch) FlushChain(f opt.Family, table, chain string) {
	b.add(unix.NFT_MSG_DELRULE, f, name(unix.NFTA_RULE_TABLE, table), name(unix.NFTA_RULE_CHAIN, chain))
}

// DeleteChain removes a chain that is empty and that no rule refers to.
func (b *Batch) DeleteChain(f opt.Family, table, chain string) {
	b.add(unix.NFT_MSG_DELCHAIN, f, name(unix.NFTA_CHAIN_TABLE, table), name(unix.NFTA_CHAIN_NAME, chain))
}

// Commit applies the batch if nf_tables is still of the given generation, and returns ErrChanged
// otherwise. It acts in the network namespace of the calling thread.
func (b *Batch) Commit(generation uint32) error {
	s, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netfilter socket: %w", err)
	}
	defer s.Close()
	const patience = 10 // seconds; the kernel answers before Sendto returns
	if err := s.SetReceiveTimeout(&unix.Timeval{Sec: patience}); err != nil {
		return fmt.Errorf("open netfilter socket: %w", err)
	}
	if err := unix.Sendto(s.GetFd(), b.serialize(generation), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("send removals to nf_tables: %w", err)
	}
	// The kernel acknowledges every removal, also when another removal fails; the first error counts. It
	// refuses a batch of a past generation with a single answer.
	var first error
	for acknowledged := 0; acknowledged < len(b.removals); {
		msgs, _, err := s.Receive()
		if err != nil {
			return fmt.Errorf("read answer of nf_tables: %w", err)
		}
		for _, m := range msgs {
			errno, ok := answer(m)
			if !ok {
				continue
			}
			acknowledged++
			if errno == unix.ERESTART {
				return ErrChanged
			}
			if errno != 0 && first == nil {
				first = fmt.Errorf("remove from nf_tables: %w", errno)
			}
		}
	}
	return first
}

// serialize writes the batch with its begin and end, as a datagram.
func (b *Batch) serialize(generation uint32) []byte {
	out := edge(unix.NFNL_MSG_BATCH_BEGIN, nl.NewRtAttr(unix.NFNL_BATCH_GENID, binary.BigEndian.AppendUint32(nil, generation)))
	for _, r := range b.removals {
		out = append(out, r.Serialize()...)
	}
	return append(out, edge(unix.NFNL_MSG_BATCH_END)...)
}

// edge is the message that opens or closes a batch.
func edge(kind int, attrs ...*nl.RtAttr) []byte {
	req := nl.NewNetlinkRequest(kind, 0)
	req.AddData(header{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES})
	for _, a := range attrs {
		req.AddData(a)
	}
	return req.Serialize()
}

// answer reads the error number of an acknowledgement; ok is false for every other message.
func answer(m syscall.NetlinkMessage) (errno unix.Errno, ok bool) {
	if m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
		return 0, false
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data))), true
}
