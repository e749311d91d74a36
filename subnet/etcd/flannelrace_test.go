package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// A flannel node that writes between our look and our write costs us only the race,
// in either family.
func TestFlannelWritesBetweenLookAndWrite(t *testing.T) {
	n, err := config.ParseNetwork([]byte(`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}`))
	if err != nil {
		t.Fatal(err)
	}
	prefer, err := subnet.ParseKey("10.5.9.0-24&fd00:5:0:9::-64")
	if err != nil {
		t.Fatal(err)
	}
	for name, leaf := range map[string]string{
		"IPv4": "10.5.9.0-24&fd00:5:0:77::-64", "IPv4 alone": "10.5.9.0-24", "IPv6": "10.5.77.0-24&fd00:5:0:9::-64",
	} {
		t.Run(name, func(t *testing.T) {
			own := fmt.Sprintf("/race/%s-%d", name, time.Now().UnixNano()) // a second run finds no key of the first
			r, err := Open(t.Context(), Options{Endpoints: []string{os.Getenv("LODEN_TEST_SHARED")}, Prefix: own}, zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			flannel := func(leaf string) {
				if err := r.do(t.Context(), "put", func(ctx context.Context, c *clientv3.Client) error {
					_, err := c.Put(ctx, r.keys.lease(leaf), `{"PublicIP":"192.0.2.250","PublicIPv6":null}`)
					return err
				}); err != nil {
					t.Fatal(err)
				}
			}
			flannel("10.5.200.0-24&fd00:5:0:200::-64") // so that it is known to be about
			want := Want{Network: n, Prefer: prefer, Lease: subnet.Lease{
				Node: "a", Key: [32]byte{1}, Endpoints: opt.Dual[netip.AddrPort]{V4: opt.Some(netip.MustParseAddrPort("192.0.2.1:51820"))},
			}}
			x := acquisition{r: r}
			seen, err := x.survey(t.Context(), want)
			if err != nil {
				t.Fatal(err)
			}
			flannel(leaf)
			d, err := decide(seen, 0, time.Now(), r.seconds())
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := x.commit(t.Context(), seen, d); !errors.Is(err, errRace) {
				t.Fatalf("got %v, want a lost race", err)
			}
			c, err := r.Acquire(t.Context(), want)
			if err != nil {
				t.Fatal(err)
			}
			theirs, _ := subnet.ParseKey(leaf)
			for f, p := range c.Lease().Subnets.All() {
				if q, ok := theirs.Of(f).Get(); ok && q == p {
					t.Errorf("%s is held twice", p)
				}
			}
			s, err := r.Snapshot(t.Context())
			if err != nil || s.Leases.Len() != 1 {
				t.Errorf("left behind: %+v, %v", s.Leases, err)
			}
		})
	}
}
