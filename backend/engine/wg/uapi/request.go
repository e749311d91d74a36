package uapi

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/config/opt"
)

// Request is a whole "set" operation, parsed and valid. A None leaves the setting as it is.
type Request struct {
	PrivateKey   opt.Option[noise.Key] // zero: remove the key
	ListenPort   opt.Option[uint16]    // 0: any free port
	Mark         opt.Option[uint32]    // 0: no mark
	ReplacePeers bool
	Peers        []PeerRequest
}

// PeerRequest is the part of a request for one peer.
type PeerRequest struct {
	PublicKey         noise.Key
	Remove            bool
	UpdateOnly        bool // ignore the peer unless it is configured already
	ReplaceAllowedIPs bool
	PresharedKey      opt.Option[noise.Key]      // zero: remove the key
	Endpoint          opt.Option[netip.AddrPort] // its zone is the text of the request: a name or a number
	Keepalive         opt.Option[uint16]         // seconds; 0: no persistent keepalive
	AllowedIPs        []AllowedIP
}

// AllowedIP adds a prefix to the allowed IPs of a peer, or removes it.
type AllowedIP struct {
	Prefix netip.Prefix
	Remove bool
}

// Wipe overwrites the secrets of a request.
func (r *Request) Wipe() {
	r.PrivateKey = opt.None[noise.Key]()
	for i := range r.Peers {
		r.Peers[i].PresharedKey = opt.None[noise.Key]()
	}
}

// Parse reads the lines of a request up to the empty line. Errors carry a unix.Errno and never a
// value, which may be secret. The caller wipes the request.
func Parse(r io.Reader) (*Request, error) {
	lines, ok := r.(*bufio.Reader)
	if !ok {
		lines = bufio.NewReader(r)
	}
	want := &Request{}
	for {
		line, err := readLine(lines)
		if err != nil {
			return nil, fmt.Errorf("read UAPI request: %w", err)
		}
		if line == "" {
			return want, nil
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("line without '=': %w", unix.EPROTO)
		}
		if !want.line(key, value) {
			return nil, fmt.Errorf("value of %.40q: %w", key, unix.EINVAL)
		}
	}
}

// line parses a line. The lines after a public_key belong to that peer.
func (r *Request) line(key, value string) bool {
	if key == "public_key" {
		k, ok := parseKey(value)
		r.Peers = append(r.Peers, PeerRequest{PublicKey: k})
		return ok
	}
	if len(r.Peers) > 0 {
		return r.Peers[len(r.Peers)-1].line(key, value)
	}
	switch key {
	case "private_key":
		return parse(&r.PrivateKey, value, parseKey)
	case "listen_port":
		return parse(&r.ListenPort, value, parseUint16)
	case "fwmark":
		return parse(&r.Mark, value, func(s string) (uint32, bool) {
			n, err := strconv.ParseUint(s, 0, 32)
			return uint32(n), err == nil || s == ""
		})
	case "replace_peers":
		r.ReplacePeers = true
		return value == "true"
	}
	return false
}

func (p *PeerRequest) line(key, value string) bool {
	switch key {
	case "remove":
		p.Remove = true
		return value == "true"
	case "update_only":
		p.UpdateOnly = true
		return value == "true"
	case "replace_allowed_ips":
		p.ReplaceAllowedIPs = true
		return value == "true"
	case "protocol_version":
		return value == "1"
	case "preshared_key":
		return parse(&p.PresharedKey, value, parseKey)
	case "endpoint":
		return parse(&p.Endpoint, value, func(s string) (netip.AddrPort, bool) {
			a, err := netip.ParseAddrPort(s)
			return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), err == nil
		})
	case "persistent_keepalive_interval":
		return parse(&p.Keepalive, value, parseUint16)
	case "allowed_ip":
		value, remove := strings.CutPrefix(value, "-")
		prefix, err := netip.ParsePrefix(value)
		p.AllowedIPs = append(p.AllowedIPs, AllowedIP{prefix.Masked(), remove})
		return err == nil
	}
	return false
}

// parse stores in o the value that fn makes of s.
func parse[T any](o *opt.Option[T], s string, fn func(string) (T, bool)) bool {
	v, ok := fn(s)
	*o = opt.Some(v)
	return ok
}

func parseUint16(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil
}

func parseKey(s string) (k noise.Key, ok bool) {
	if len(s) != hex.EncodedLen(len(k)) {
		return k, false
	}
	_, err := hex.Decode(k[:], []byte(s))
	return k, err == nil
}
