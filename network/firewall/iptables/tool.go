package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	coreos "github.com/coreos/go-iptables/iptables"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/rule"
)

// lockWait is how long a process waits for the xtables lock, in seconds. kube-proxy
// holds it for seconds on big clusters (flannel issues 808, 935).
const lockWait = 5

// attempts is how often a restore is tried while another program holds the lock.
const attempts = 5

// exitBusy is what iptables ends with when it could not get the lock or the kernel said
// to try again (RESOURCE_PROBLEM in xtables.h).
const exitBusy = 4

// Tool is the iptables of a family. It keeps no file open; it is safe for concurrent
// use. It runs where the calling process runs.
type Tool struct {
	owner   rule.Owner
	family  opt.Family
	ipt     *coreos.IPTables
	restore string // path of iptables-restore
	wait    []string
}

// Find asks the version of a command and looks for its restore: a single process.
// errors.Is(err, exec.ErrNotFound) tells that it is not installed.
func Find(o rule.Owner, c Command) (*Tool, error) {
	name := c.Name
	if name == "" {
		name = Plain(c.Family)
	}
	proto := coreos.ProtocolIPv4
	if c.Family == opt.V6 {
		proto = coreos.ProtocolIPv6
	}
	ipt, err := coreos.New(coreos.IPFamily(proto), coreos.Path(name), coreos.Timeout(lockWait))
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	restore, err := exec.LookPath(name + "-restore")
	if err != nil {
		return nil, fmt.Errorf("find %s-restore: %w", name, err)
	}
	return &Tool{owner: o, family: c.Family, ipt: ipt, restore: restore, wait: waitArgs(ipt.GetIptablesVersion())}, nil
}

// RandomFully reports whether MASQUERADE --random-fully is known (iptables 1.6.2).
func (t *Tool) RandomFully() bool { return t.ipt.HasRandomFully() }

// waitArgs returns the flags that make iptables-restore wait for the lock. It learnt --wait in
// 1.6.2, later than iptables itself; older versions end with a usage error (flannel issue 1637).
func waitArgs(major, minor, patch int) []string {
	if major > 1 || major == 1 && (minor > 6 || minor == 6 && patch >= 2) {
		return []string{"--wait", fmt.Sprint(lockWait)}
	}
	return nil
}

// List lists the tables of the given places, a process per table.
func (t *Tool) List(ctx context.Context, places ...rule.Place) (Snapshot, error) {
	s := Snapshot{Owner: t.owner, tables: map[string]table{}}
	for _, p := range places {
		name := slotOf(t.owner, p).table
		if _, ok := s.tables[name]; ok {
			continue
		}
		if err := ctx.Err(); err != nil {
			return s, err
		}
		// -S takes a chain if there is one and may stand without: with -v (counters) in
		// its place a single process lists the whole table.
		lines, err := t.ipt.List(name, "-v")
		if err != nil {
			return s, fmt.Errorf("list %s table %s: %w", t.family, name, err)
		}
		s.tables[name] = parseTable(lines)
	}
	return s, nil
}

// Restore applies input in an iptables-restore that leaves all further rules alone. It
// blocks while another program holds the lock, a bounded time.
func (t *Tool) Restore(ctx context.Context, input string) error {
	args := append([]string{"--noflush", "--counters"}, t.wait...)
	for try := 1; ; try++ {
		cmd := exec.CommandContext(ctx, t.restore, args...)
		cmd.Stdin = strings.NewReader(input)
		var said bytes.Buffer
		cmd.Stderr = &said
		err := cmd.Run()
		if err == nil {
			return nil
		}
		err = fmt.Errorf("restore %s rules: %w: %s", t.family, err, strings.TrimSpace(said.String()))
		if try == attempts || !busy(err, said.String()) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(try) * 100 * time.Millisecond):
		}
	}
}

// busy reports whether a restore failed because another program was changing rules.
func busy(err error, said string) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	return exit.ExitCode() == exitBusy ||
		strings.Contains(said, "xtables lock") || strings.Contains(said, "temporarily unavailable")
}
