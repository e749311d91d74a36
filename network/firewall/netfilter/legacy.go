package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
)

// The socket options by which iptables-legacy reads a table (linux/netfilter_ipv4/ip_tables.h;
// ip6_tables.h has the same numbers on its own level).
const (
	getInfo    = 64
	getEntries = 65

	tableName = 32                // XT_TABLE_MAXNAMELEN
	infoSize  = tableName + 13*4  // valid_hooks, hook_entry[5], underflow[5], num_entries, size
	headSize  = tableName + 4 + 4 // name, size, padding to the alignment of the counters
)

// layout is where the parts of one family's rule lie, in bytes from its start.
type layout struct{ level, nextOffset, comefrom, counters int }

func layoutOf(f opt.Family) layout {
	if f == opt.V6 {
		return layout{level: unix.IPPROTO_IPV6, nextOffset: 142, comefrom: 144, counters: 152}
	}
	return layout{level: unix.IPPROTO_IP, nextOffset: 90, comefrom: 92, counters: 96}
}

// LegacyTables returns the names of the tables of the old packet filter that exist in the
// calling thread's network namespace. Reading one that does not would make it.
func LegacyTables(f opt.Family) ([]string, error) {
	file := "/proc/thread-self/net/ip_tables_names"
	if f == opt.V6 {
		file = "/proc/thread-self/net/ip6_tables_names"
	}
	names, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return strings.Fields(string(names)), err
}

// LegacyTable returns the rules of one existing table in the kernel's own form, without
// their counters, and how many there are beside those that every table has.
func LegacyTable(f opt.Family, table string) (content []byte, rules int, err error) {
	const socket = unix.SOCK_RAW | unix.SOCK_CLOEXEC
	domain := unix.AF_INET
	if f == opt.V6 {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, socket, unix.IPPROTO_RAW)
	if err != nil {
		return nil, 0, fmt.Errorf("read %s table %s: %w", f, table, err)
	}
	defer unix.Close(fd)
	at := layoutOf(f)
	info := make([]byte, infoSize)
	copy(info[:tableName-1], table)
	if err := getsockopt(fd, at.level, getInfo, info); err != nil {
		return nil, 0, fmt.Errorf("read %s table %s: %w", f, table, err)
	}
	size := binary.NativeEndian.Uint32(info[infoSize-4:])
	entries := make([]byte, headSize+int(size))
	copy(entries[:tableName-1], table)
	binary.NativeEndian.PutUint32(entries[tableName:], size)
	if err := getsockopt(fd, at.level, getEntries, entries); err != nil {
		return nil, 0, fmt.Errorf("read %s table %s: %w", f, table, err)
	}
	// Each hook has its policy as a rule, and one more ends the table.
	hooks := bits.OnesCount32(binary.NativeEndian.Uint32(info[tableName:]))
	rules = int(binary.NativeEndian.Uint32(info[infoSize-8:])) - hooks - 1
	content = entries[headSize:]
	return content, rules, at.still(content)
}

// still sets to zero what changes although no rule does.
func (l layout) still(entries []byte) error {
	for len(entries) > 0 {
		if len(entries) < l.counters+16 {
			return errors.New("read rules: entry is cut off")
		}
		next := int(binary.NativeEndian.Uint16(entries[l.nextOffset:]))
		if next < l.counters+16 || next > len(entries) {
			return errors.New("read rules: entry of no possible size")
		}
		clear(entries[l.comefrom : l.comefrom+4])
		clear(entries[l.counters : l.counters+16])
		entries = entries[next:]
	}
	return nil
}

func getsockopt(fd, level, name int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	runtime.KeepAlive(b)
	if errno != 0 {
		return errno
	}
	return nil
}
