package wg

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/config/opt"
)

// request is a whole "set" of UAPI, read and valid.
type request struct {
	private      opt.Option[noise.Key]
	port         opt.Option[uint16]
	mark         opt.Option[uint32]
	replacePeers bool
	peers        []peerRequest
}

// peerRequest is what a request says of one peer.
type peerRequest struct {
	key            noise.Key
	remove         bool
	updateOnly     bool
	replaceAllowed bool
	preshared      opt.Option[noise.Key]
	endpoint       opt.Option[netip.AddrPort] // a zone in it is as it was given until Device.resolve
	keepalive      opt.Option[uint16]         // seconds
	allowed        []allowedRequest
}

type allowedRequest struct {
	prefix netip.Prefix
	remove bool
}

// wipe overwrites the secrets of a request.
func (r *request) wipe() {
	r.private = opt.None[noise.Key]()
	for i := range r.peers {
		r.peers[i].preshared = opt.None[noise.Key]()
	}
}

// parseRequest reads lines up to the empty one. Errors carry a unix.Errno and never a
// value, which may be secret.
func parseRequest(r *bufio.Reader) (*request, error) {
	want := &request{}
	for {
		line, err := readLine(r)
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

// line reads one line; those after a public_key are of that peer.
func (r *request) line(key, value string) bool {
	if key == "public_key" {
		k, ok := parseKey(value)
		r.peers = append(r.peers, peerRequest{key: k})
		return ok
	}
	if len(r.peers) > 0 {
		return r.peers[len(r.peers)-1].line(key, value)
	}
	switch key {
	case "private_key":
		return parse(&r.private, value, parseKey)
	case "listen_port":
		return parse(&r.port, value, parseUint16)
	case "fwmark":
		return parse(&r.mark, value, func(s string) (uint32, bool) {
			n, err := strconv.ParseUint(s, 0, 32)
			return uint32(n), err == nil || s == ""
		})
	case "replace_peers":
		r.replacePeers = true
		return value == "true"
	}
	return false
}

func (p *peerRequest) line(key, value string) bool {
	switch key {
	case "remove":
		p.remove = true
		return value == "true"
	case "update_only":
		p.updateOnly = true
		return value == "true"
	case "replace_allowed_ips":
		p.replaceAllowed = true
		return value == "true"
	case "protocol_version":
		return value == "1"
	case "preshared_key":
		return parse(&p.preshared, value, parseKey)
	case "endpoint":
		return parse(&p.endpoint, value, func(s string) (netip.AddrPort, bool) {
			a, err := netip.ParseAddrPort(s)
			return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), err == nil
		})
	case "persistent_keepalive_interval":
		return parse(&p.keepalive, value, parseUint16)
	case "allowed_ip":
		value, remove := strings.CutPrefix(value, "-")
		prefix, err := netip.ParsePrefix(value)
		p.allowed = append(p.allowed, allowedRequest{prefix.Masked(), remove})
		return err == nil
	}
	return false
}

// parse puts what fn makes of s into o.
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
