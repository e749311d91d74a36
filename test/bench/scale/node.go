package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/test/bench/proc"
)

// node is Loden: the daemon and its engine.
type node struct{ title, program string }

func (n node) name() string { return n.title }

// daemon is a running node.
type daemon struct {
	*bed
	node
	cmd    *exec.Cmd
	engine int // process id
}

// state is the node's state directory, on the disk; the default one of a sandbox is in memory.
func (d *daemon) state() string { return filepath.Join(d.dir, "state") }

// start starts the daemon and returns the time until it says that it is ready.
func (d *daemon) start(ctx context.Context, limit time.Duration) (time.Duration, error) {
	d.cmd = d.bed.node.Command(context.WithoutCancel(ctx), d.program, "run", "--etcd-endpoints", storeURL, "--etcd-prefix", storePrefix,
		"--node-name", "measured", "--ip-masq", "--engine", "loden", "--state-dir", d.state())
	d.cmd.Env = append(os.Environ(), "GODEBUG=gctrace=1")
	began := time.Now()
	if _, err := d.bed.start(d.cmd, "daemon.log"); err != nil {
		return 0, err
	}
	err := eventually(ctx, limit, func() error {
		_, err := d.ask(ctx, "/readyz")
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("wait for readiness: %w: %s", err, d.tail("daemon.log"))
	}
	took := time.Since(began)
	pids, err := d.bed.node.PIDs()
	if err != nil {
		return 0, err
	}
	for _, text := range pids {
		words, _ := os.ReadFile(filepath.Join("/proc", text, "cmdline"))
		if pid, _ := strconv.Atoi(text); strings.Contains(string(words), "\x00engine\x00") {
			d.engine = pid
		}
	}
	return took, nil
}

// ask gets a path from the daemon's socket.
func (d *daemon) ask(ctx context.Context, path string) ([]byte, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", d.bed.node.Path("/run/loden/loden.sock"))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://loden"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, resp.Status, body)
	}
	return body, err
}

// pid returns the daemon's process id.
func (d *daemon) pid() int { return d.cmd.Process.Pid }

// allocMetric is the metric of the Go runtime on /metrics that counts the bytes of all
// allocations so far.
const allocMetric = "go_memstats_alloc_bytes_total"

// allocated returns the bytes that the daemon has allocated so far: from its metrics, or, of a
// build without that metric, from the garbage collector's lines in its log. A scrape
// allocates too, so the metric is read twice and the cost of a scrape taken off.
func (d *daemon) allocated(ctx context.Context) (before, after float64) {
	read := func() float64 {
		text, _ := d.ask(ctx, "/metrics")
		return proc.NumberAfter(text, allocMetric)
	}
	first := read()
	if first == 0 {
		n := collected(d.log("daemon.log"))
		return n, n
	}
	return first, read()
}

// peers returns what wg(8) says of each peer, without the counters: key, preshared key, endpoint
// and allowed prefixes; and the bytes sent to each.
func (d *daemon) peers() (settings map[string]string, sent map[string]int64, err error) {
	text, err := d.bed.node.Output("wg", "show", "loden0", "dump")
	if err != nil {
		return nil, nil, err
	}
	settings, sent = map[string]string{}, map[string]int64{}
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) == 8 { // the interface's own line has fewer fields
			settings[f[0]] = strings.Join([]string{f[1], f[2], f[3], f[7]}, " ")
			sent[f[0]], _ = strconv.ParseInt(f[6], 10, 64)
		}
	}
	return settings, sent, nil
}

// measure runs the phases: start, idle, joins for their cost, joins for their latency, restart,
// burst. The phases with probes come late, because the engine repeats each handshake for 90 s.
func (n node) measure(ctx context.Context, o options, leases int, v figures) error {
	b, err := newBed(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	d := &daemon{bed: b, node: n}
	var c cluster
	if err := seed(ctx, b.client, leases, c.op); err != nil {
		return err
	}
	took, err := d.start(ctx, o.limit)
	if err != nil {
		return err
	}
	v["start s"] = took.Seconds()
	if c.own, err = d.ownSubnet(); err != nil {
		return err
	}
	j := &joiner{client: b.client, op: c.op, next: leases}
	quiet(ctx, o.limit, d.pid(), d.engine)
	if err := d.known(ctx, leases, o.limit); err != nil {
		return err
	}
	d.idle(ctx, o, v)
	p, err := newProber(b, c.pod)
	if err != nil {
		return err
	}
	go p.listen()
	wrote := written(d.pid())
	for _, phase := range []func() error{
		func() error { return d.cost(ctx, o, j, v) },
		func() error { return latency(ctx, o, j, p, v) },
		func() error { return d.restart(ctx, o, wrote, v) },
		func() error { return d.burst(ctx, o, j, p, v) },
	} {
		if err := errors.Join(phase(), ctx.Err()); err != nil {
			return err
		}
	}
	return d.known(ctx, j.next, o.limit)
}

// ownSubnet reads the node's IPv4 subnet from its subnet.env.
func (d *daemon) ownSubnet() (netip.Prefix, error) {
	text, err := os.ReadFile(d.bed.node.Path("/run/flannel/subnet.env"))
	if err != nil {
		return netip.Prefix{}, err
	}
	env, err := config.ParseEnv(text)
	own, _ := env.Subnets.V4.Get()
	return own.Masked(), err
}

// known checks that WireGuard has so many peers.
func (d *daemon) known(ctx context.Context, want int, limit time.Duration) error {
	return eventually(ctx, limit, func() error {
		peers, _, err := d.peers()
		if err == nil && len(peers) != want {
			err = fmt.Errorf("WireGuard has %d peers, want %d", len(peers), want)
		}
		if err != nil {
			wait(ctx, 300*time.Millisecond) // a dump of many peers costs the engine time
		}
		return err
	})
}

// idle watches the node at rest.
func (d *daemon) idle(ctx context.Context, o options, v figures) {
	v["RSS daemon MB"], v["RSS engine MB"] = proc.RSS(d.pid()), proc.RSS(d.engine)
	if o.idle == 0 {
		return
	}
	before := proc.Ticks(d.pid()) + proc.Ticks(d.engine)
	wait(ctx, o.idle)
	v["idle CPU ticks"] = proc.Ticks(d.pid()) + proc.Ticks(d.engine) - before
}

// cost lets nodes join without probes, and measures CPU and allocations.
func (d *daemon) cost(ctx context.Context, o options, j *joiner, v figures) error {
	first, second := d.allocated(ctx)
	before := quiet(ctx, o.limit, d.pid(), d.engine)
	if err := j.paced(ctx, o.joins, o.rate, func(int) {}); err != nil {
		return err
	}
	after := quiet(ctx, o.limit, d.pid(), d.engine)
	end, _ := d.allocated(ctx)
	const msPerTick = 1000 / proc.TicksPerSecond
	v["CPU daemon ms/join"] = (after[0] - before[0]) * msPerTick / float64(o.joins)
	v["CPU engine ms/join"] = (after[1] - before[1]) * msPerTick / float64(o.joins)
	v["CPU ms/join"] = v["CPU daemon ms/join"] + v["CPU engine ms/join"]
	v["allocated KB/join"] = max(0, end-second-(second-first)) / 1024 / float64(o.joins)
	v["RSS daemon after joins MB"], v["RSS engine after joins MB"] = proc.RSS(d.pid()), proc.RSS(d.engine)
	return nil
}

// latency lets nodes join and measures when their peers are configured.
func latency(ctx context.Context, o options, j *joiner, p *prober, v figures) error {
	sending, stop := context.WithCancel(ctx)
	defer stop()
	go p.send(sending, time.Millisecond)
	if err := j.paced(ctx, o.joins, o.rate, p.expect); err != nil {
		return err
	}
	took, missing := p.finish(ctx, o.limit)
	v["join p50 ms"], v["join p99 ms"], v["join missing"] = quantile(took, .5), quantile(took, .99), float64(missing)
	return nil
}

// restart ends the daemon by SIGTERM and starts it again; the engine lives on.
func (d *daemon) restart(ctx context.Context, o options, wrote float64, v figures) error {
	quiet(ctx, o.limit, d.pid())
	before, sentBefore, err := d.peers()
	if err != nil {
		return err
	}
	v["disk KB/join"] = (written(d.pid()) - wrote) / 1024 / float64(2*o.joins)
	engine := d.engine
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	_ = d.cmd.Wait()
	usage, _ := d.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	v["disk with exit KB/join"] = (float64(usage.Oublock)*512 - wrote) / 1024 / float64(2*o.joins)
	took, err := d.start(ctx, o.limit)
	if err != nil {
		return err
	}
	v["restart s"] = took.Seconds()
	quiet(ctx, o.limit, d.pid())
	after, sentAfter, err := d.peers()
	changed := 0
	for k, settings := range before {
		if after[k] != settings || sentAfter[k] < sentBefore[k] {
			changed++
		}
	}
	v["restart changed peers"] = float64(changed + max(0, len(after)-len(before)))
	if d.engine != engine {
		err = errors.Join(err, errors.New("the restart of the daemon replaced the engine"))
	}
	return err
}

// burstSamples is how many leases of a burst are probed: few, so that the engine has the time
// for the peers. The last lease is among them.
const burstSamples = 25

// burst lets many nodes join at once.
func (d *daemon) burst(ctx context.Context, o options, j *joiner, p *prober, v figures) error {
	if o.burst == 0 {
		return nil
	}
	first := j.next
	before := quiet(ctx, o.limit, d.pid(), d.engine)
	began := time.Now()
	step := max(1, o.burst/burstSamples)
	for i := o.burst - 1; i >= 0; i -= step {
		p.expect(first + i)
	}
	sending, stop := context.WithCancel(ctx)
	defer stop()
	go p.send(sending, 10*time.Millisecond)
	if err := j.burst(ctx, o.burst); err != nil {
		return err
	}
	v["burst written s"] = time.Since(began).Seconds()
	took, missing := p.finish(ctx, o.limit)
	v["burst p50 ms"], v["burst settled s"], v["burst missing"] = quantile(took, .5), quantile(took, 1)/1000, float64(missing)
	stop()
	after := quiet(ctx, o.limit, d.pid(), d.engine)
	v["burst CPU s"] = (after[0] - before[0] + after[1] - before[1]) / proc.TicksPerSecond
	return nil
}
