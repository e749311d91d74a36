package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

// crowdedDoc has seven subnets of each family.
const crowdedDoc = `{"Network":"10.9.0.0/27","SubnetLen":30,"EnableIPv6":true,"IPv6Network":"fd09::/59","IPv6SubnetLen":62}`

// histories is how many are run: few by default, LODEN_HISTORIES=10000 for the long form.
func histories(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(os.Getenv("LODEN_HISTORIES"))
	if err != nil {
		return 300
	}
	return n
}

// Nodes join, leave, expire, wake up too late and lose requests, all at once, over and
// over, beside a lease that flannel wrote. Each history must be a history that a single list of
// holders could have produced, and no event in etcd may show a subnet of either family
// held twice.
func TestAllocationIsLinearizable(t *testing.T) {
	r := openQuiet(t)
	r.Intercept(lossy)
	c := plain(t, shared)
	watcher := watchForDuplicates(t, c, prefix(t)+"/")
	var stats tally
	total, next := histories(t), atomic.Int64{}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(total) && !t.Failed(); i = next.Add(1) {
				oneHistory(t, r, c, uint64(i), &stats)
			}
		})
	}
	wg.Wait()
	duplicates, events := watcher()
	t.Logf("%d histories: %s; %d lease events, subnets held twice: %d IPv4, %d IPv6", total, &stats, events, duplicates[opt.V4], duplicates[opt.V6])
	if duplicates[opt.V4]+duplicates[opt.V6] != 0 {
		t.Error("a subnet was held twice")
	}
	if events == 0 || stats.lost.Load() == 0 || stats.unknown.Load() == 0 {
		t.Error("the histories did not do what they are for")
	}
}

// tally counts the outcomes.
type tally struct{ acquired, lost, unknown, released, expired, full atomic.Int64 }

func (s *tally) String() string {
	return fmt.Sprintf("%d acquired, %d released, %d expired, %d woke up too late, %d without an answer, %d found it full",
		s.acquired.Load(), s.released.Load(), s.expired.Load(), s.lost.Load(), s.unknown.Load(), s.full.Load())
}

// lossy loses requests, or only their answers, when the context says so. The status is a status
// that etcd's client does not try again by itself.
func lossy(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	draw, ok := ctx.Value(lossKey{}).(func() float64)
	if !ok {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	switch x := draw(); {
	case x < 0.10:
		return status.Error(codes.Aborted, "request lost")
	case x < 0.20:
		_ = invoke(ctx, method, req, reply, cc, opts...)
		return status.Error(codes.Aborted, "answer lost")
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

type lossKey struct{}

// player is a node of a history.
type player struct {
	h    *history
	r    *etcd.Registry
	name string
	host byte
	rnd  *rand.Rand
	old  []*etcd.Claim // every claim it ever had; the last is the newest

	updates uint16
}

// history is a run.
type history struct {
	t     *testing.T
	stats *tally
	start time.Time
	admin *clientv3.Client
	n     config.Network

	mu  sync.Mutex
	ops []porcupine.Operation
}

func (h *history) record(client int, in input, do func() output) output {
	call := time.Since(h.start).Nanoseconds()
	out := do()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: time.Since(h.start).Nanoseconds()})
	if out.unknown {
		h.stats.unknown.Add(1)
	}
	return out
}

func oneHistory(t *testing.T, shared *etcd.Registry, c *clientv3.Client, seed uint64, stats *tally) {
	base := fmt.Sprintf("%s/%d", prefix(t), seed)
	r, err := shared.At(base)
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := c.Put(t.Context(), base+"/subnets/10.9.0.12-30&fd09:0:0:10::-62", `{"PublicIP":"192.0.2.250","PublicIPv6":null}`); err != nil {
		t.Error(err)
		return
	}
	h := &history{t: t, stats: stats, start: time.Now(), admin: c, n: network(t, crowdedDoc)}
	var wg sync.WaitGroup
	for i, name := range []string{"a", "b", "c", "d"} {
		p := &player{h: h, r: r, name: name, host: byte(i + 1), rnd: rand.New(rand.NewPCG(seed, uint64(i)))}
		wg.Go(func() {
			for range 4 {
				p.step(t.Context())
			}
		})
	}
	wg.Wait()
	h.record(9, input{op: "list"}, func() output { return list(t.Context(), r) })
	result := porcupine.CheckOperationsTimeout(model.ToModel(), h.ops, patience)
	if result != porcupine.Ok {
		var text []string
		for _, op := range h.ops {
			text = append(text, fmt.Sprintf("%d..%d %+v -> %+v", op.Call, op.Return, op.Input, op.Output))
		}
		t.Errorf("history %d is %s:\n%s", seed, result, strings.Join(text, "\n"))
	}
	if _, err := c.Delete(t.Context(), base+"/", clientv3.WithPrefix()); err != nil {
		t.Error(err)
	}
}

// step does an operation at random.
func (p *player) step(ctx context.Context) {
	if p.rnd.IntN(3) == 0 { // a bad network for an operation
		ctx = context.WithValue(ctx, lossKey{}, func() float64 { return p.rnd.Float64() })
	}
	if len(p.old) == 0 || p.rnd.IntN(5) < 2 {
		p.acquire(ctx)
		return
	}
	claim := p.old[len(p.old)-1]
	switch p.rnd.IntN(4) {
	case 0:
		p.release(ctx, claim)
	case 1:
		p.expire(claim)
	case 2:
		p.update(ctx, p.old[p.rnd.IntN(len(p.old))]) // perhaps a claim that ended long ago
	default:
		p.h.record(int(p.host), input{op: "list"}, func() output { return list(ctx, p.r) })
	}
}

func (p *player) acquire(ctx context.Context) {
	var prefer opt.Dual[netip.Prefix]
	for f, rng := range p.h.n.Ranges.All() { // each family by itself, so that pairs cross
		if p.rnd.IntN(2) == 0 {
			a, _ := subnet.Allocate(p.h.n, fmt.Sprint(p.rnd.Uint64()), prefer, nil)
			if q, ok := a.Of(f).Get(); ok && rng.Contains(q) {
				prefer = prefer.With(f, q)
			}
		}
	}
	p.h.record(int(p.host), input{op: "acquire", node: p.name}, func() output {
		c, err := p.r.Acquire(ctx, etcd.Want{Network: p.h.n, Lease: want(p.name, p.host), Prefer: prefer})
		if err != nil {
			return p.outcome(err)
		}
		p.h.stats.acquired.Add(1)
		p.old = append(p.old, c)
		return output{ok: true, subnets: c.Lease().Subnets, since: c.Lease().Since}
	})
}

func (p *player) expire(c *etcd.Claim) {
	p.h.record(int(p.host), input{op: "remove", since: c.Lease().Since}, func() output {
		_, err := p.h.admin.Revoke(p.h.t.Context(), c.EtcdLease())
		if err == nil {
			p.h.stats.expired.Add(1)
		}
		return output{ok: true} // or it was gone before
	})
}

func (p *player) update(ctx context.Context, c *etcd.Claim) {
	p.h.record(int(p.host), input{op: "update", node: p.name, since: c.Lease().Since}, func() output {
		p.updates++ // another port each time, so that there is something to write
		w := want(p.name, p.host)
		w.Endpoints.V4 = opt.Some(netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, p.host}), 1000+p.updates))
		return p.outcome(c.Update(ctx, w))
	})
}

func (p *player) release(ctx context.Context, c *etcd.Claim) {
	p.h.record(int(p.host), input{op: "remove", since: c.Lease().Since}, func() output {
		out := p.outcome(c.Release(ctx))
		if out.ok {
			p.h.stats.released.Add(1)
		}
		return out
	})
}

// outcome sorts an error: no write was done, or it is not known.
func (p *player) outcome(err error) output {
	switch {
	case err == nil:
		return output{ok: true}
	case errors.Is(err, etcd.ErrLeaseLost):
		p.h.stats.lost.Add(1)
		return output{}
	case errors.Is(err, subnet.ErrOutOfSubnets):
		p.h.stats.full.Add(1)
		return output{}
	case !errors.Is(err, etcd.ErrUnavailable):
		p.h.t.Errorf("%s: %v", p.name, err)
	}
	return output{unknown: true}
}

func list(ctx context.Context, r *etcd.Registry) output {
	s, err := r.Snapshot(ctx)
	if err != nil {
		return output{unknown: true}
	}
	out := output{ok: true, list: map[string]holding{}}
	for l := range s.Leases.All() {
		out.list[l.Node] = holding{l.Subnets, l.Since}
	}
	return out
}
