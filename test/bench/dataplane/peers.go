package main

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/test/bench/proc"
	"github.com/loden-net/loden/test/sandbox"
)

// runPeers measures the cost of so many configured, idle peers.
func runPeers(ctx context.Context, o options, contenders []contender) error {
	fmt.Printf("contender\tpeers\tconfigure ms\tdump ms\tchange one ms\tRSS MB\tRSS kB per peer\tthreads\n")
	for size := range strings.SplitSeq(o.peers, ",") {
		for _, c := range contenders {
			if !c.wireGuard() {
				continue
			}
			if err := onePeers(ctx, c, size); err != nil {
				return fmt.Errorf("measure %s peers of %s: %w", size, c.name, err)
			}
		}
	}
	return nil
}

// onePeers starts an engine on a host of its own and configures it.
func onePeers(ctx context.Context, c contender, size string) error {
	host, err := sandbox.NewHost("peers")
	if err != nil {
		return err
	}
	defer host.Close()
	b, s := &bed{contender: c}, &side{host: host}
	defer b.close()
	if err := b.startEngine(ctx, s); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	pid := s.engine.Process.Pid
	before := proc.RSS(pid)
	text, err := host.Output(self, "configure", "wg0", size)
	if err != nil {
		return err
	}
	n, err := strconv.ParseFloat(size, 64)
	if err != nil {
		return err
	}
	after := proc.RSS(pid)
	fmt.Printf("%s\t%s\t%s\t%.1f\t%.2f\t%.0f\n", c.name, size, strings.TrimSpace(text), after,
		(after-before)*1024/n, proc.Number(pid, "status", "Threads:"))
	return nil
}

// configurePeers runs on the engine's host: it sets so many peers in a single call, dumps them
// and changes a peer, and prints the milliseconds of each.
func configurePeers(iface, size string) error {
	n, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	client, err := wgctrl.New()
	if err != nil {
		return err
	}
	defer client.Close()
	peers := make([]wgtypes.PeerConfig, n)
	for i := range peers {
		peers[i] = somePeer(i)
	}
	configure, err := timed(func() error { return client.ConfigureDevice(iface, wgtypes.Config{Peers: peers}) })
	if err != nil {
		return err
	}
	var dumps []time.Duration
	for range 5 {
		dump, err := timed(func() error {
			d, err := client.Device(iface)
			if err == nil && len(d.Peers) != n {
				err = fmt.Errorf("%d peers listed, want %d", len(d.Peers), n)
			}
			return err
		})
		if err != nil {
			return err
		}
		dumps = append(dumps, dump)
	}
	slices.Sort(dumps)
	changed := peers[n/2]
	changed.UpdateOnly, changed.Endpoint = true, &net.UDPAddr{IP: net.IPv4(198, 18, 0, 1), Port: 1}
	change, err := timed(func() error {
		return client.ConfigureDevice(iface, wgtypes.Config{Peers: []wgtypes.PeerConfig{changed}})
	})
	fmt.Printf("%.1f\t%.1f\t%.2f\n", ms(configure), ms(dumps[len(dumps)/2]), ms(change))
	return err
}

func timed(fn func() error) (time.Duration, error) {
	began := time.Now()
	err := fn()
	return time.Since(began), err
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// somePeer is peer i: an endpoint, a /24 and a /64.
func somePeer(i int) wgtypes.PeerConfig {
	var key wgtypes.Key
	if _, err := rand.Read(key[:]); err != nil {
		panic(errors.Join(err, errors.New("impossible: crypto/rand never fails")))
	}
	v4, v6 := make(net.IP, net.IPv4len), make(net.IP, net.IPv6len)
	binary.BigEndian.PutUint32(v4, 10<<24+uint32(i)<<8)
	v6[0] = 0xfd
	binary.BigEndian.PutUint32(v6[4:], uint32(i))
	return wgtypes.PeerConfig{
		PublicKey: key, Endpoint: &net.UDPAddr{IP: net.IPv4(198, 18, byte(i>>8), byte(i)), Port: 51820},
		ReplaceAllowedIPs: true,
		AllowedIPs:        []net.IPNet{{IP: v4, Mask: net.CIDRMask(24, 32)}, {IP: v6, Mask: net.CIDRMask(64, 128)}},
	}
}
