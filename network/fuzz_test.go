package network_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/network"
)

// FuzzKernelMessages feeds arbitrary bodies to the parsers of netlink messages.
func FuzzKernelMessages(f *testing.F) {
	route := append([]byte{unix.AF_INET, 16, 0, 0, unix.RT_TABLE_MAIN, 76, 0, unix.RTN_UNICAST, 0, 0, 0, 0}, 8, 0, unix.RTA_DST, 0, 10, 244, 0, 0)
	multipath := append(append([]byte{}, route...), 12, 0, unix.RTA_MULTIPATH, 0, 8, 0, 0, 0, 3, 0, 0, 0)
	for _, body := range [][]byte{nil, make([]byte, 16), route, multipath, append(make([]byte, 16), 5, 0, unix.IFLA_IFNAME, 0, 'x')} {
		for _, kind := range []uint16{unix.RTM_NEWLINK, unix.RTM_NEWADDR, unix.RTM_NEWROUTE, unix.RTM_NEWNETCONF} {
			f.Add(kind, body)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint16, body []byte) { network.ParseMessage(t, kind, body) })
}
