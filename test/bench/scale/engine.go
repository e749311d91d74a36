package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/test/bench/proc"
)

// engine is wireguard-go, configured by this program's helper.
type engine struct{ program string }

func (engine) name() string { return "wireguard-go" }

// measure sets n peers in a single request, and then peers one by one.
func (e engine) measure(ctx context.Context, o options, n int, v figures) error {
	b, err := newBed(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	began := time.Now()
	cmd, err := b.start(b.node.Command(context.WithoutCancel(ctx), e.program, "-f", "loden0"), "engine.log")
	if err != nil {
		return err
	}
	if err := eventually(ctx, o.limit, func() error { return b.node.Run("wg", "show", "loden0") }); err != nil {
		return err
	}
	pid := cmd.Process.Pid
	add := func(from, count, rate int) (time.Duration, error) {
		self, err := os.Executable()
		if err != nil {
			return 0, err
		}
		text, err := b.node.Output(self, "peers", "loden0", strconv.Itoa(from), strconv.Itoa(count), strconv.Itoa(rate))
		if err != nil {
			return 0, err
		}
		return time.ParseDuration(strings.TrimSpace(text))
	}
	if _, err := add(0, n, 0); err != nil {
		return err
	}
	v["start s"] = time.Since(began).Seconds()
	quiet(ctx, o.limit, pid)
	v["RSS engine MB"] = proc.RSS(pid)
	if o.idle > 0 {
		before := proc.Ticks(pid)
		wait(ctx, o.idle)
		v["idle CPU ticks"] = proc.Ticks(pid) - before
	}
	before := proc.Ticks(pid)
	took, err := add(n, o.joins, o.rate)
	if err != nil {
		return err
	}
	v["join p50 ms"] = float64(took.Microseconds()) / 1000
	v["CPU engine ms/join"] = (quiet(ctx, o.limit, pid)[0] - before) * 1000 / proc.TicksPerSecond / float64(o.joins)
	v["RSS engine after joins MB"] = proc.RSS(pid)
	return nil
}

// configurePeers runs on the node's host: it sets peers of an interface, all in a single request
// when rate is 0, else each in a request of its own, and prints the median time of a request.
func configurePeers(iface, from, count, rate string) error {
	first, err := strconv.Atoi(from)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	perSecond, err := strconv.Atoi(rate)
	if err != nil {
		return err
	}
	client, err := wgctrl.New()
	if err != nil {
		return err
	}
	defer client.Close()
	set := func(peers ...wgtypes.PeerConfig) (time.Duration, error) {
		began := time.Now()
		err := client.ConfigureDevice(iface, wgtypes.Config{Peers: peers})
		return time.Since(began), err
	}
	var all []wgtypes.PeerConfig
	for i := range n {
		all = append(all, peer(first+i))
	}
	if perSecond == 0 {
		took, err := set(all...)
		fmt.Println(took)
		return err
	}
	p := &prober{waiting: map[netip.Addr]awaited{}}
	start := time.Now()
	for i := range all {
		wait(context.Background(), time.Until(start.Add(time.Duration(i)*time.Second/time.Duration(perSecond))))
		took, err := set(all[i])
		if err != nil {
			return err
		}
		p.took = append(p.took, took)
	}
	took, _ := p.finish(context.Background(), 0)
	fmt.Println(took[len(took)/2])
	return nil
}

// peer returns lease i as a daemon configures it.
func peer(i int) wgtypes.PeerConfig {
	l := cluster{}.lease(i)
	out := wgtypes.PeerConfig{PublicKey: l.Key, ReplaceAllowedIPs: true, Endpoint: &net.UDPAddr{IP: endpoint(i).AsSlice(), Port: port}}
	for _, s := range l.Subnets.All() {
		out.AllowedIPs = append(out.AllowedIPs, net.IPNet{IP: s.Addr().AsSlice(), Mask: net.CIDRMask(s.Bits(), s.Addr().BitLen())})
	}
	return out
}
