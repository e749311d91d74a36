// Command cni measures the cost of loden-cni: ADD and DEL beside the bare reference chain
// (bridge with host-local) given the very configuration that loden-cni hands on, in turns
// in one run, in a sandbox of its own. It owns the measurement and its report; it knows
// loden-cni only as a program.
//
// As on a node, a namespace is made right before its ADD. Then every call waits until the
// kernel has done what the one before left to it, and a namespace's end most of all, which
// takes tens of milliseconds under the locks that the next call needs.
//
//	go run ./test/bench/cni -bin bin -plugins bin/cni -n 300 -limit 1.1
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loden-net/loden/test/sandbox"
)

const network = "lodenbench"

// settle is longer than what a call leaves to the kernel took (an RCU grace period, a
// device's and a namespace's end: 10 to 60 ms).
const settle = 100 * time.Millisecond

// conf is the plugin's configuration in a dual-stack cluster, as the conflist has it.
const conf = `{"cniVersion":"1.0.0","name":"` + network + `","type":"loden-cni","delegate":{"hairpinMode":true,"isDefaultGateway":true}}`

const subnetEnv = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_IPV6_NETWORK=fd44::/48\n" +
	"FLANNEL_IPV6_SUBNET=fd44:0:0:3::1/64\nFLANNEL_MTU=1420\nFLANNEL_IPMASQ=true\n"

func main() {
	bin := flag.String("bin", "bin", "directory of loden-cni")
	plugins := flag.String("plugins", "bin/cni", "directory of the reference plugins")
	n := flag.Int("n", 300, "attachments by each")
	limit := flag.Float64("limit", 0, "end with status 1 when a ratio is above this; 0 never does")
	flag.Parse()
	if *n < 1 {
		fmt.Fprintln(os.Stderr, "bench: nothing to measure: -n must be 1 or more")
		os.Exit(2)
	}
	if err := sandbox.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	worst, err := measure(*bin, *plugins, *n)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	case *limit > 0 && worst > *limit:
		fmt.Fprintf(os.Stderr, "bench: ratio %.2f is above the limit %.2f\n", worst, *limit)
		os.Exit(1)
	}
}

// contender is a program with the times of its calls.
type contender struct {
	name, program string
	conf          []byte
	add, del      []time.Duration
}

// measure runs the contenders in turns, prints the report and returns the worse ratio.
func measure(bin, plugins string, n int) (float64, error) {
	plugins, err := filepath.Abs(plugins)
	if err != nil {
		return 0, err
	}
	program, err := filepath.Abs(filepath.Join(bin, "loden-cni"))
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll("/run/flannel", 0o755); err != nil {
		return 0, err
	}
	if err := os.WriteFile("/run/flannel/subnet.env", []byte(subnetEnv), 0o644); err != nil { // subnet.env is for all to read
		return 0, err
	}
	loden := &contender{name: "loden-cni", program: program, conf: []byte(conf)}
	delegated, err := delegatedConf(loden, plugins)
	if err != nil {
		return 0, err
	}
	bridge := filepath.Join(plugins, "bridge")
	bare := &contender{name: "bridge", program: bridge, conf: delegated}
	before, err := stolen()
	if err != nil {
		return 0, err
	}
	if err := takeTurns([]*contender{loden, bare}, plugins, n); err != nil {
		return 0, err
	}
	after, err := stolen()
	if err != nil {
		return 0, err
	}
	fmt.Printf("%d attachments by each; %s stolen by other machines meanwhile\n", n, after-before)
	return report(loden, bare), nil
}

// takeTurns attaches and detaches n containers by each contender. Every round starts with
// another one, and the first rounds, which read the programs from the disk, do not count.
func takeTurns(all []*contender, plugins string, n int) error {
	const warmUp = 3
	for i := range n + warmUp {
		for k := range all {
			c := (i + k) % len(all)
			if err := all[c].once(fmt.Sprintf("c%d-%d", c, i), plugins, i >= warmUp); err != nil {
				return err
			}
		}
	}
	return nil
}

// stolen returns how long the machine's processors have waited for a host's, since boot.
func stolen() (time.Duration, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	const field, tick = 8, 10 * time.Millisecond // proc_stat(5): "cpu", then user nice system idle iowait irq softirq steal, in USER_HZ
	words := strings.Fields(string(data))
	if len(words) <= field {
		return 0, fmt.Errorf("read /proc/stat: %d words", len(words))
	}
	ticks, err := strconv.Atoi(words[field])
	return time.Duration(ticks) * tick, err
}

// delegatedConf attaches a container and returns the configuration that loden-cni gave to bridge.
func delegatedConf(c *contender, plugins string) ([]byte, error) {
	const id = "first"
	if err := run("ip", "netns", "add", id); err != nil {
		return nil, err
	}
	if _, err := c.call("ADD", id, plugins); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join("/var/lib/cni/loden", network, id+"@eth0"))
	if err != nil {
		return nil, err
	}
	var note struct {
		Config json.RawMessage `json:"config"`
	}
	if err := json.Unmarshal(data, &note); err != nil {
		return nil, err
	}
	return note.Config, nil // the container stays, so that the bridge does
}

// once attaches and detaches a container in a fresh namespace.
func (c *contender) once(id, plugins string, counts bool) error {
	if err := run("ip", "netns", "add", id); err != nil {
		return err
	}
	add, err := c.call("ADD", id, plugins)
	if err != nil {
		return err
	}
	time.Sleep(settle)
	del, err := c.call("DEL", id, plugins)
	if err != nil {
		return err
	}
	if counts {
		c.add, c.del = append(c.add, add), append(c.del, del)
	}
	err = run("ip", "netns", "del", id)
	time.Sleep(settle)
	return err
}

// call starts the plugin as a runtime does and returns how long it took.
func (c *contender) call(verb, id, plugins string) (time.Duration, error) {
	cmd := exec.Command(c.program)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+id, "CNI_NETNS=/run/netns/"+id, "CNI_IFNAME=eth0", "CNI_PATH="+plugins)
	cmd.Stdin = bytes.NewReader(c.conf)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(start)
	if err != nil {
		return 0, fmt.Errorf("%s %s: %w: %s", c.name, verb, err, out)
	}
	return took, nil
}

// nap is what the bridge sleeps when it finds the container's IPv6 address tentative, by
// chance in one ADD of three or four (SETTLE_INTERVAL in containernetworking/plugins).
const nap = 50 * time.Millisecond

// report prints the means, which are what a container waits, and the ratios of the pairs in
// which no bridge slept, which are what the program in front of it costs by itself. It
// returns the greater ratio of the means.
func report(loden, bare *contender) float64 {
	fmt.Printf("%-4s  %-21s  %-21s  %-5s  %s\n", "", loden.name, bare.name, "ratio", "of a pair that is not long (25/50/75 %)")
	worst := 0.0
	for _, row := range []struct {
		verb       string
		ours, bare []time.Duration
	}{{"ADD", loden.add, bare.add}, {"DEL", loden.del, bare.del}} {
		ratio := float64(mean(row.ours)) / float64(mean(row.bare))
		worst = max(worst, ratio)
		fmt.Printf("%-4s  %-21s  %-21s  %-5.2f  %s\n", row.verb, summary(row.ours), summary(row.bare), ratio, quartiles(pairs(row.ours, row.bare)))
	}
	return worst
}

// summary is the mean, and how many were so long that the bridge may have slept.
func summary(all []time.Duration) string {
	long := 0
	for _, d := range all {
		if d >= nap {
			long++
		}
	}
	return fmt.Sprintf("%.1f ms, %d long", float64(mean(all).Microseconds())/1000, long)
}

func mean(all []time.Duration) (sum time.Duration) {
	for _, d := range all {
		sum += d
	}
	return sum / time.Duration(len(all))
}

// pairs returns the ratios of the pairs without a nap: a nap is three times an ADD.
func pairs(ours, bare []time.Duration) []float64 {
	var ratios []float64
	for i := range ours {
		if max(ours[i], bare[i]) < nap {
			ratios = append(ratios, float64(ours[i])/float64(bare[i]))
		}
	}
	return ratios
}

func quartiles(ratios []float64) string {
	if len(ratios) == 0 {
		return "none"
	}
	return fmt.Sprintf("%.2f / %.2f / %.2f of %d", quantile(ratios, 25), quantile(ratios, 50), quantile(ratios, 75), len(ratios))
}

// quantile returns the p-th percentile.
func quantile(d []float64, p int) float64 {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[(len(sorted)-1)*p/100]
}

// run executes a short command; the error has its output.
func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("run %s %v: %w: %s", name, args, err, out)
	}
	return nil
}
