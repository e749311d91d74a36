// Command cni measures what loden-cni costs: ADD and DEL beside the bare reference chain
// (bridge with host-local) given the very configuration that loden-cni hands on, in turns
// in one run, in a sandbox of its own. It owns the measurement and its report; it knows
// loden-cni only as a program.
//
//	go run ./test/bench/cni -bin bin -plugins bin/cni -n 100 -limit 1.1
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
	"time"

	"github.com/loden-net/loden/network/sandbox"
)

const network = "lodenbench"

// conf is the plugin's configuration in a dual-stack cluster, as the conflist has it.
const conf = `{"cniVersion":"1.0.0","name":"` + network + `","type":"loden-cni","delegate":{"hairpinMode":true,"isDefaultGateway":true}}`

const subnetEnv = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_IPV6_NETWORK=fd44::/48\n" +
	"FLANNEL_IPV6_SUBNET=fd44:0:0:3::1/64\nFLANNEL_MTU=1420\nFLANNEL_IPMASQ=true\n"

func main() {
	bin := flag.String("bin", "bin", "directory of loden-cni")
	plugins := flag.String("plugins", "bin/cni", "directory of the reference plugins")
	n := flag.Int("n", 100, "attachments by each")
	limit := flag.Float64("limit", 0, "end with status 1 when a ratio is above this; 0 never does")
	flag.Parse()
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

// contender is one of the two, and how long its calls took.
type contender struct {
	name, program string
	conf          []byte
	add, del      []time.Duration
}

// measure runs both in turns, prints the report and returns the worse ratio.
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
	if err := os.WriteFile("/run/flannel/subnet.env", []byte(subnetEnv), 0o644); err != nil { //nolint:gosec // subnet.env is for all to read
		return 0, err
	}
	loden := &contender{name: "loden-cni", program: program, conf: []byte(conf)}
	delegated, err := delegatedConf(loden, plugins)
	if err != nil {
		return 0, err
	}
	bare := &contender{name: "bridge", program: filepath.Join(plugins, "bridge"), conf: delegated}
	const warmUp = 3
	for i := range n + warmUp {
		turn := []*contender{loden, bare}
		if i%2 == 1 {
			slices.Reverse(turn)
		}
		for _, c := range turn {
			if err := c.once(fmt.Sprintf("%s%d", c.name, i), plugins, i >= warmUp); err != nil {
				return 0, err
			}
		}
	}
	return report(loden, bare), nil
}

// delegatedConf attaches one container and returns what loden-cni gave to bridge for it.
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

// once attaches and detaches one container in a fresh namespace.
func (c *contender) once(id, plugins string, counts bool) error {
	if err := run("ip", "netns", "add", id); err != nil {
		return err
	}
	add, err := c.call("ADD", id, plugins)
	if err != nil {
		return err
	}
	del, err := c.call("DEL", id, plugins)
	if err != nil {
		return err
	}
	if counts {
		c.add, c.del = append(c.add, add), append(c.del, del)
	}
	return run("ip", "netns", "del", id)
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

// report prints medians, quartiles and their ratios, and returns the greater ratio.
func report(loden, bare *contender) float64 {
	fmt.Printf("%-4s  %-26s  %-26s  %s\n", "", loden.name+" (25/50/75 %)", bare.name+" (25/50/75 %)", "ratio of medians")
	worst := 0.0
	for _, row := range []struct {
		verb       string
		ours, bare []time.Duration
	}{{"ADD", loden.add, bare.add}, {"DEL", loden.del, bare.del}} {
		ratio := float64(quantile(row.ours, 50)) / float64(quantile(row.bare, 50))
		worst = max(worst, ratio)
		fmt.Printf("%-4s  %-26s  %-26s  %.2f\n", row.verb, quartiles(row.ours), quartiles(row.bare), ratio)
	}
	return worst
}

func quartiles(d []time.Duration) string {
	ms := func(p int) float64 { return float64(quantile(d, p).Microseconds()) / 1000 }
	return fmt.Sprintf("%.1f / %.1f / %.1f ms", ms(25), ms(50), ms(75))
}

// quantile returns the p-th percentile.
func quantile(d []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[(len(sorted)-1)*p/100]
}

// run executes a short command; what it said is in the error.
func run(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("run %s %v: %w: %s", name, args, err, out)
	}
	return nil
}
