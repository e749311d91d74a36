package config

import (
	"fmt"
	"strings"
)

// maxInterfaceName is IFNAMSIZ without the final zero byte.
const maxInterfaceName = 15

// CheckInterfaceName returns why the kernel would not create an interface with exactly this
// name, with the remedy, or nil. The rules are dev_valid_name's (net/core/dev.c); a '%' would make
// the kernel choose a number (dev_alloc_name), and "all" and "default" name the sysctls of every
// interface (devinet_sysctl_register).
func CheckInterfaceName(name string) error {
	bad := name == "" || len(name) > maxInterfaceName || name == "." || name == ".." || name == "all" || name == "default" ||
		strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' || r == ':' || r == '%' }) ||
		strings.IndexByte(name, 0xa0) >= 0 // a space to the kernel (lib/ctype.c)
	if bad {
		return fmt.Errorf("interface name %q: give 1 to %d characters without spaces, '/', ':' and '%%', as in loden0; "+
			"\"all\" and \"default\" are reserved", name, maxInterfaceName)
	}
	return nil
}
