package config

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/loden-net/loden/config/opt"
)

// Env is subnet.env: the facts that the CNI plugin and docker need about this node. Its form is
// flannel's, name for name and in flannel's order, so that flannel's plugin reads it too.
// The zero value is an empty file. It is comparable with ==.
type Env struct {
	Networks opt.Dual[netip.Prefix] // the overlay
	Subnets  opt.Dual[netip.Prefix] // this node's subnet, masked
	MTU      int                    // of a pod's interface, bytes
	Masq     bool                   // whether the daemon masquerades, so that a bridge must not
}

// The variables of subnet.env. The IPv4 names are flannel's first ones; IPv6 came later.
const (
	envNetwork     = "FLANNEL_NETWORK"
	envSubnet      = "FLANNEL_SUBNET"
	envIPv6Network = "FLANNEL_IPV6_NETWORK"
	envIPv6Subnet  = "FLANNEL_IPV6_SUBNET"
	envMTU         = "FLANNEL_MTU"
	envMasq        = "FLANNEL_IPMASQ"
)

// Gateway returns the first usable address of a node's subnet with the subnet's length:
// subnet.env holds it, and the pods' bridge gets it.
func Gateway(subnet netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(subnet.Masked().Addr().Next(), subnet.Bits())
}

// Bytes returns the file's content.
func (e Env) Bytes() []byte {
	var b bytes.Buffer
	if v, ok := e.Networks.V4.Get(); ok {
		fmt.Fprintf(&b, "%s=%s\n", envNetwork, v)
	}
	if v, ok := e.Subnets.V4.Get(); ok {
		fmt.Fprintf(&b, "%s=%s\n", envSubnet, Gateway(v))
	}
	if v, ok := e.Networks.V6.Get(); ok {
		fmt.Fprintf(&b, "%s=%s\n", envIPv6Network, v)
	}
	if v, ok := e.Subnets.V6.Get(); ok {
		fmt.Fprintf(&b, "%s=%s\n", envIPv6Subnet, Gateway(v))
	}
	fmt.Fprintf(&b, "%s=%d\n%s=%t\n", envMTU, e.MTU, envMasq, e.Masq)
	return b.Bytes()
}

// ParseEnv reads a subnet.env. Unknown variables are ignored. A value that cannot be read,
// or that is of the wrong family, is left out and named in the error; the rest is returned
// all the same, so that a garbled file is worth what is readable in it (flannel issue
// 2454: a bad CIDR there ended the daemon).
func ParseEnv(data []byte) (Env, error) {
	var env Env
	var errs []error
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			errs = append(errs, fmt.Errorf("line %d: no '=' in it", n))
			continue
		}
		if err := env.set(strings.TrimSpace(name), strings.Trim(strings.TrimSpace(value), `"'`)); err != nil {
			errs = append(errs, fmt.Errorf("line %d: %s: %w", n, name, err))
		}
	}
	return env, errors.Join(append(errs, lines.Err())...)
}

// set stores the value of a variable.
func (e *Env) set(name, value string) (err error) {
	switch name {
	case envNetwork:
		e.Networks.V4, err = envPrefix(opt.V4, value)
	case envSubnet:
		e.Subnets.V4, err = envPrefix(opt.V4, value)
	case envIPv6Network:
		e.Networks.V6, err = envPrefix(opt.V6, value)
	case envIPv6Subnet:
		e.Subnets.V6, err = envPrefix(opt.V6, value)
	case envMTU:
		e.MTU, err = strconv.Atoi(value)
		if err == nil && (e.MTU < 0 || e.MTU > 65535) {
			e.MTU, err = 0, fmt.Errorf("%s is no MTU", value)
		}
	case envMasq:
		e.Masq, err = strconv.ParseBool(value)
	}
	return err
}

// envPrefix reads a prefix of one family, masked. A list (flannel's multi-network form)
// has no single meaning here and is refused.
func envPrefix(f opt.Family, value string) (opt.Option[netip.Prefix], error) {
	p, err := netip.ParsePrefix(value)
	if err != nil {
		return opt.None[netip.Prefix](), err
	}
	if opt.FamilyOf(p.Addr()) != f || p.Addr().Is4In6() {
		return opt.None[netip.Prefix](), fmt.Errorf("%s is not %s", value, f)
	}
	return opt.Some(p.Masked()), nil
}

// LoadEnv reads the file at path. A file that does not exist is None without an error; a
// garbled file gives its readable part, with the error.
func LoadEnv(path string) (opt.Option[Env], error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return opt.None[Env](), nil
	}
	if err != nil {
		return opt.None[Env](), err
	}
	env, err := ParseEnv(data)
	if err != nil {
		err = fmt.Errorf("read %s: %w", path, err)
	}
	return opt.Some(env), err
}
