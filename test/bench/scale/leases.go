package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

// maxLeases is the number of /24 in 10.0.0.0/8 less the first 256, of which a subnet stands in
// for the subnet that the node itself took.
const maxLeases = 1<<16 - 256

// port is the UDP port of every endpoint.
const port = 51820

// endpoints has the address of every synthetic node; RFC 2544 keeps it for benchmarks.
var endpoints = netip.MustParsePrefix("198.18.0.0/15")

// cluster makes the synthetic leases.
type cluster struct {
	own netip.Prefix // the IPv4 subnet of the real node, which no lease may have
}

// lease returns lease i, always the same apart from its time.
func (c cluster) lease(i int) subnet.Lease {
	var v6 [16]byte
	v6[0], v6[1], v6[4] = 0xfd, 0x10, 1
	binary.BigEndian.PutUint16(v6[6:], uint16(i))
	return subnet.Lease{
		Node: fmt.Sprintf("n%05d", i), Key: key(i), Claimed: time.Now().UnixNano(),
		Subnets: opt.Dual[netip.Prefix]{
			V4: opt.Some(c.subnet(i)), V6: opt.Some(netip.PrefixFrom(netip.AddrFrom16(v6), 64)),
		},
		Endpoints: opt.Dual[netip.AddrPort]{V4: opt.Some(netip.AddrPortFrom(endpoint(i), port))},
	}
}

// subnet returns the IPv4 subnet of lease i.
func (c cluster) subnet(i int) netip.Prefix {
	at := func(slot int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(slot >> 8), byte(slot), 0}), 24)
	}
	if s := at(256 + i); s != c.own {
		return s
	}
	return at(255)
}

// pod returns an address in the IPv4 subnet of lease i.
func (c cluster) pod(i int) netip.Addr {
	a := c.subnet(i).Addr().As4()
	a[3] = 7
	return netip.AddrFrom4(a)
}

func endpoint(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, byte(18 + i>>16), byte(i >> 8), byte(i)})
}

// key returns the public key of lease i. Any 32 bytes are a point of Curve25519 or of its twist,
// so the engine's handshake with it takes the usual time.
func key(i int) (k wgtypes.Key) {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], uint64(i)+1)
	_, _ = rand.NewChaCha8(seed).Read(k[:]) // ChaCha8 always fills the slice
	k[31] &= 0x7f
	return k
}

// op writes lease i as Loden does.
func (c cluster) op(i int) (clientv3.Op, error) {
	l := c.lease(i)
	return clientv3.OpPut(storePrefix+"/subnets/"+subnet.FormatKey(l.Subnets), string(subnet.FormatValue(l))), nil
}

// seed writes the leases below n in transactions of many.
func seed(ctx context.Context, client *clientv3.Client, n int, op func(int) (clientv3.Op, error)) error {
	var ops []clientv3.Op
	for i := range n {
		o, err := op(i)
		if err != nil {
			return err
		}
		if ops = append(ops, o); len(ops) == 100 || i == n-1 {
			if _, err := client.Txn(ctx).Then(ops...).Commit(); err != nil {
				return fmt.Errorf("write leases: %w", err)
			}
			ops = nil
		}
	}
	return nil
}

// joiner lets nodes join, each with a write of its own.
type joiner struct {
	client *clientv3.Client
	op     func(int) (clientv3.Op, error)
	next   int // lease
}

// paced lets count nodes join at a rate, and calls joining with each lease just before it is written.
func (j *joiner) paced(ctx context.Context, count, rate int, joining func(i int)) error {
	start := time.Now()
	for k := range count {
		wait(ctx, time.Until(start.Add(time.Duration(k)*time.Second/time.Duration(rate))))
		o, err := j.op(j.next)
		if err != nil {
			return err
		}
		joining(j.next)
		j.next++
		if _, err := j.client.Do(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// burst lets count nodes join as fast as etcd takes the writes, 64 at a time.
func (j *joiner) burst(ctx context.Context, count int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(64)
	for i := j.next; i < j.next+count; i++ {
		group.Go(func() error {
			o, err := j.op(i)
			if err == nil {
				_, err = j.client.Do(ctx, o)
			}
			return err
		})
	}
	j.next += count
	return group.Wait()
}
