// Command firewall measures the cost of masquerade rules: wall time and processes started for
// a first start, a cycle without a difference, a change of the subnet, and a repair. Loden's
// two drivers and flannel's iptables manager run in sequence, dual-stack, in a sandbox.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/test/sandbox"
)

// cycles is how many cycles without a difference are measured.
const cycles = 5

// subject is a program that keeps masquerade rules.
type subject struct {
	name string
	// start makes the rules for a subnet and keeps them until stop; it returns when they
	// are there. pass runs a pass, or waits for a pass.
	start func(ctx context.Context, subnet int) (pass func() error, err error)
	// period is how long a pass waits by itself.
	period time.Duration
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	if err := sandbox.Enter(); err != nil {
		return err
	}
	dir, err := counting()
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tfirst start\t\tidle cycle\t\tsubnet changed\t\tchain flushed\t")
	fmt.Fprintln(w, "\twall\tprocesses\twall\tprocesses\twall\tprocesses\trepaired after\tprocesses")
	for _, s := range []subject{loden("iptables"), loden("nftables"), flannel(1), flannel(5)} {
		row, err := measure(s, dir)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Fprintln(w, row)
	}
	return w.Flush()
}

// measure goes through the four situations of a subject.
func measure(s subject, dir string) (string, error) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	m := meter{file: filepath.Join(dir, "calls"), row: []string{s.name}}
	var pass func() error
	start := func(subnet int) func() error {
		return func() (err error) {
			pass, err = s.start(ctx, subnet)
			return err
		}
	}
	rest := func() error { // with the cost of a first look at its own rules
		time.Sleep(s.period)
		return pass()
	}
	idle := func() error {
		time.Sleep(cycles*s.period + s.period/2)
		for range cycles {
			if err := pass(); err != nil {
				return err
			}
		}
		return nil
	}
	repair := func() error {
		for began := time.Now(); !whole(); {
			if err := pass(); err != nil || time.Since(began) > 30*time.Second {
				return fmt.Errorf("not repaired: %w", err)
			}
		}
		return nil
	}
	for _, step := range []func() error{
		func() error { return m.time(start(1), 1) }, rest,
		func() error { return m.cpu(idle, cycles) },
		func() error { return m.time(start(2), 1) }, rest, vandalise,
		func() error { return m.time(repair, 1) }, tidy,
	} {
		if err := step(); err != nil {
			return "", err
		}
	}
	return strings.Join(m.row, "\t"), nil
}

// meter writes the costs of a subject, column by column.
type meter struct {
	file string // holds a line per process
	row  []string
}

// time runs fn, which repeats a step n times, and notes the wall time and processes of a step.
func (m *meter) time(fn func() error, n int) error {
	return m.note(fn, n, func() time.Duration { return time.Duration(time.Now().UnixNano()) }, "")
}

// cpu notes the processor's time, of tools as well, instead of the wall's.
func (m *meter) cpu(fn func() error, n int) error {
	return m.note(fn, n, func() time.Duration {
		var sum time.Duration
		for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
			var u unix.Rusage
			if err := unix.Getrusage(who, &u); err == nil {
				sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
			}
		}
		return sum
	}, " cpu")
}

func (m *meter) note(fn func() error, n int, clock func() time.Duration, unit string) error {
	began, before := clock(), m.calls()
	err := fn()
	took := (clock() - began) / time.Duration(n)
	m.row = append(m.row, fmt.Sprintf("%.1f ms%s", took.Seconds()*1000, unit), fmt.Sprintf("%.1f", float64(m.calls()-before)/float64(n)))
	return err
}

// calls returns how many processes were started up to now.
func (m *meter) calls() int {
	b, err := os.ReadFile(m.file)
	if err != nil {
		return 0
	}
	return strings.Count(string(b), "\n")
}

// counting puts tools into PATH that note every start, and returns their directory.
func counting() (string, error) {
	dir, err := os.MkdirTemp("", "loden-bench-firewall-")
	if err != nil {
		return "", err
	}
	for _, name := range []string{"iptables", "ip6tables", "iptables-restore", "ip6tables-restore", "iptables-save", "ip6tables-save", "nft"} {
		path, err := exec.LookPath(name)
		if err != nil {
			return "", err
		}
		script := fmt.Sprintf("#!/bin/sh\necho x >> %s/calls\nexec %s \"$@\"\n", dir, path)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			return "", err
		}
	}
	return dir, os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// vandalise flushes the IPv4 chain of the measured program, and whole tells when its last
// rule is back; neither is counted.
func vandalise() error {
	return script(`
		for c in $(iptables -t nat -S | sed -n 's/^-N \(LODEN-MASQ.*\|FLANNEL.*\)/\1/p'); do iptables -t nat -F $c; done
		for c in $(nft list tables ip | grep -o loden); do nft flush chain ip loden $(nft list table ip loden | sed -n 's/.*chain \(masq-[^ ]*\) .*/\1/p'); done`)
}

func whole() bool {
	return script(`nft list ruleset ip | grep 'saddr != 10.244.0.0/16.*[mM][aA][sS][qQ]' | grep -q .`) == nil
}

// tidy leaves the kernel empty for the next subject.
func tidy() error { return script("nft flush ruleset") }

// script calls the tools themselves, not the wrappers that count.
func script(text string) error {
	cmd := exec.Command("sh", "-c", "PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"+text)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
