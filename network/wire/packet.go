package wire

import (
	"bytes"
	"encoding/binary"
	"net/netip"

	"github.com/loden-net/loden/backend/engine/wg/offload"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/prefix"
)

// Packet is the content of the outermost header of a packet.
type Packet struct {
	Interface string     `json:"interface"`
	Outgoing  bool       `json:"outgoing"` // left this node; otherwise it arrived
	Src       netip.Addr `json:"src"`
	Dst       netip.Addr `json:"dst"`
	Protocol  uint8      `json:"protocol"` // IANA number
	Canary    bool       `json:"canary"`   // a probe of a Loden node

	nonce uint64 // of a canary
}

// canaryProtocol is an IP protocol number for experiments (RFC 3692): nobody answers.
const canaryProtocol = 253

// magic starts the payload of every canary.
const magic = "loden canary "

// parse reads the outermost header of a packet given from its network header on.
func parse(b []byte) (Packet, bool) {
	var p Packet
	var payload []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		p.Src, p.Dst, p.Protocol = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[9]
		payload = b[min(int(b[0]&0x0f)*4, len(b)):]
	case len(b) >= 40 && b[0]>>4 == 6:
		p.Src, p.Dst, p.Protocol = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[6]
		payload = b[40:]
	default:
		return p, false
	}
	rest, ok := bytes.CutPrefix(payload, []byte(magic))
	if ok && p.Protocol == canaryProtocol && len(rest) >= 8 {
		p.Canary, p.nonce = true, binary.BigEndian.Uint64(rest)
	}
	return p, true
}

// canary builds a packet from the first to the last address of a network. It is not
// forwarded (its hop limit is 1) and holds only a number.
func canary(network netip.Prefix, nonce uint64) []byte {
	payload := binary.BigEndian.AppendUint64([]byte(magic), nonce)
	src, dst := network.Masked().Addr(), prefix.Last(network)
	if opt.FamilyOf(src) == opt.V6 {
		b := []byte{0x60, 0, 0, 0, 0, byte(len(payload)), canaryProtocol, 1}
		b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
		return append(b, payload...)
	}
	b := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 0, 0, 0, 1, canaryProtocol, 0, 0}
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], ^offload.Sum(b, 0))
	return append(b, payload...)
}
