package netfilter

import (
	"bytes"
	"encoding/binary"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// genHeader is the length of struct nfgenmsg: family, version, resource.
const genHeader = 4

// request builds a message of the nf_tables subsystem.
func request(kind uint16, family uint8, flags netlink.HeaderFlags, attrs []byte) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: flags},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...),
	}
}

// attributes returns the top-level attributes of a message by type. What cannot be parsed
// is absent.
func attributes(m netlink.Message) map[uint16][]byte {
	if len(m.Data) < genHeader {
		return nil
	}
	return nested(m.Data[genHeader:])
}

// nested parses attributes; of equal types the last one counts.
func nested(b []byte) map[uint16][]byte {
	attrs, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return nil
	}
	out := make(map[uint16][]byte, len(attrs))
	for _, a := range attrs {
		out[a.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = a.Data
	}
	return out
}

// text reads a string that ends with a zero byte.
func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// number reads a 32-bit number in network order; anything else is zero.
func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// cString is the form in which the kernel takes names.
func cString(s string) []byte { return append([]byte(s), 0) }

// comment reads nft's comment from a rule's user data: type, length, value triples, of
// which type 0 is the comment (libnftnl, NFTNL_UDATA_RULE_COMMENT).
func comment(data []byte) string {
	for len(data) >= 2 {
		kind, size := data[0], int(data[1])
		if len(data) < 2+size {
			return ""
		}
		if kind == 0 {
			return text(data[2 : 2+size])
		}
		data = data[2+size:]
	}
	return ""
}

// read takes a rule's expressions apart as far as we look at them.
func (r *Rule) read(expressions []byte) {
	elements, err := netlink.UnmarshalAttributes(expressions)
	if err != nil {
		return
	}
	var content bytes.Buffer
	for _, e := range elements {
		expr := nested(e.Data)
		name, data := text(expr[unix.NFTA_EXPR_NAME]), expr[unix.NFTA_EXPR_DATA]
		content.WriteString(name)
		content.WriteByte(0)
		switch name {
		case "counter":
			if p := nested(data)[unix.NFTA_COUNTER_PACKETS]; len(p) == 8 {
				r.Packets = binary.BigEndian.Uint64(p)
			}
			continue // it differs from one look to the next
		case "immediate":
			value := nested(nested(data)[unix.NFTA_IMMEDIATE_DATA])
			verdict := nested(value[unix.NFTA_DATA_VERDICT])
			r.Target = text(verdict[unix.NFTA_VERDICT_CHAIN])
		}
		content.Write(data)
	}
	r.Content = content.String()
}
