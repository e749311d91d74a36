package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// header is struct nfgenmsg: family, version and resource.
type header [4]byte

// Len returns the length in bytes.
func (h header) Len() int { return len(h) }

// Serialize returns the bytes.
func (h header) Serialize() []byte { return h[:] }

// request builds a message of the nf_tables subsystem.
func request(kind int, flags int, family uint8) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags)
	req.AddData(header{family, unix.NFNETLINK_V0, 0, 0})
	return req
}

// Generation returns a number that changes with every change of nf_tables in the network namespace of
// the calling thread. It returns ErrAbsent where the kernel has no nf_tables.
func Generation() (uint32, error) {
	msgs, err := request(unix.NFT_MSG_GETGEN, 0, unix.AF_UNSPEC).Execute(unix.NETLINK_NETFILTER, 0)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) {
		return 0, ErrAbsent
	}
	if err != nil {
		return 0, fmt.Errorf("read generation of nf_tables: %w", err)
	}
	for _, m := range msgs {
		if id, ok := generationOf(m); ok {
			return id, nil
		}
	}
	return 0, errors.New("read generation of nf_tables: the kernel's answer holds no number")
}

// generationOf reads the number from an answer without its netlink header.
func generationOf(m []byte) (uint32, bool) {
	if len(m) < len(header{}) {
		return 0, false
	}
	attrs, err := nl.ParseRouteAttr(m[len(header{}):])
	if err != nil {
		return 0, false
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.NFTA_GEN_ID && len(a.Value) == 4 {
			return binary.BigEndian.Uint32(a.Value), true
		}
	}
	return 0, false
}

// Consistent runs read until no change of nf_tables fell into it, a few times at most, and returns the
// generation that read has seen.
func (c *Conn) Consistent(read func() error) (generation uint32, err error) {
	const attempts = 10
	for range attempts {
		before, err := Generation()
		if err != nil {
			return 0, err
		}
		failed := read()
		after, err := Generation()
		if err != nil {
			return 0, err
		}
		if before == after {
			return after, failed
		}
	}
	return 0, errors.New("read nf_tables: another program changes it all the time")
}
