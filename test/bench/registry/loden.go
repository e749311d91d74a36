package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// loden keeps leases as Loden does; each node has a connection of its own.
type loden struct {
	s  *store
	at string
}

func newLoden(s *store, prefix string) loden { return loden{s, prefix} }

func (loden) name() string     { return "loden" }
func (l loden) prefix() string { return l.at }

func (l loden) open(ctx context.Context) (*etcd.Registry, error) {
	return etcd.Open(ctx, etcd.Options{Endpoints: []string{l.s.url}, Prefix: l.at, RPCTimeout: time.Minute}, zerolog.Nop())
}

// address returns a public address of node i.
func address(i int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(172<<24|16<<16+i+1))
	return netip.AddrFrom4(b)
}

func key(i int) wgtypes.Key {
	var k wgtypes.Key
	binary.BigEndian.PutUint64(k[:], uint64(i)+1)
	k[31] = 1
	return k
}

func lease(i int) subnet.Lease {
	return subnet.Lease{
		Node: fmt.Sprintf("node-%d", i), Key: key(i),
		Endpoints: opt.Dual[netip.AddrPort]{V4: opt.Some(netip.AddrPortFrom(address(i), 51820))},
	}
}

func (l loden) join(ctx context.Context, i int) (claim, error) {
	r, err := l.open(ctx)
	if err != nil {
		return claim{}, err
	}
	defer r.Close()
	n, err := r.Network(ctx)
	if err != nil {
		return claim{}, err
	}
	c, err := r.Acquire(ctx, etcd.Want{Network: n, Lease: lease(i)})
	for errors.Is(err, etcd.ErrUnavailable) && ctx.Err() == nil { // overloaded; a daemon tries again too
		c, err = r.Acquire(ctx, etcd.Want{Network: n, Lease: lease(i)})
	}
	if err != nil {
		return claim{}, err
	}
	got := c.Lease().Subnets
	st := r.Status()
	return claim{got.V4.String(), got.V6.String(), st.Requests - 1, st.Races}, nil // less the network document
}

func (l loden) follow(ctx context.Context, known func(int)) error {
	r, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	var keep subnet.Snapshot // the daemon keeps the snapshot
	err = r.Watch(ctx, func(s subnet.Snapshot) { keep = s; known(s.Leases.Len()) })
	_ = keep
	return err
}

// seed writes leases in transactions of many keys, without the claims.
func (l loden) seed(ctx context.Context, n int) error {
	network, err := config.ParseNetwork([]byte(dualDoc))
	if err != nil {
		return err
	}
	granted, err := l.s.client.Grant(ctx, 3600)
	if err != nil {
		return err
	}
	put := func(key, value string) clientv3.Op {
		return clientv3.OpPut(l.at+key, value, clientv3.WithLease(granted.ID))
	}
	var ops []clientv3.Op
	r4, _ := network.Ranges.V4.Get()
	r6, _ := network.Ranges.V6.Get()
	a4, a6 := r4.SubnetMin, r6.SubnetMin
	for i := range n {
		x := lease(i)
		x.Subnets = opt.Dual[netip.Prefix]{V4: opt.Some(netip.PrefixFrom(a4, r4.SubnetLen)), V6: opt.Some(netip.PrefixFrom(a6, r6.SubnetLen))}
		a4, a6 = after(a4, r4.SubnetLen), after(a6, r6.SubnetLen)
		ops = append(ops, put("/subnets/"+subnet.FormatKey(x.Subnets), string(subnet.FormatValue(x))), put("/nodes/"+x.Node, "{}"))
		for _, p := range x.Subnets.All() {
			ops = append(ops, put("/guards/"+subnet.FormatSubnet(p), x.Node))
		}
		if len(ops) >= 100 || i == n-1 {
			if _, err := l.s.client.Txn(ctx).Then(ops...).Commit(); err != nil {
				return err
			}
			ops = nil
		}
	}
	return nil
}

// after returns the first address after the subnet of a.
func after(a netip.Addr, bits int) netip.Addr {
	b := a.AsSlice()
	for i := (bits - 1) / 8; i >= 0; i-- {
		step := byte(1)
		if i == (bits-1)/8 {
			step = 0x80 >> ((bits - 1) % 8)
		}
		b[i] += step
		if b[i] >= step {
			break
		}
	}
	next, _ := netip.AddrFromSlice(b)
	return next
}
