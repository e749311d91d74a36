//go:build kernel

package kernel_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/test/lab"
	"github.com/loden-net/loden/test/sandbox"
)

// tracing is the kernel's tracer; guest.sh mounts it.
const tracing = "/sys/kernel/tracing/"

// witness records every packet that the kernel frees without delivering it, with the kernel's reason,
// and the counters of the hosts. A lost packet is rare and leaves no other trace.
type witness struct {
	hosts  []*sandbox.Host
	before map[string]uint64
}

// newWitness begins to record.
func newWitness(t *testing.T, l *lab.Lab) *witness {
	t.Helper()
	w := &witness{}
	for _, n := range l.Nodes {
		w.hosts = append(w.hosts, n.Host)
		for _, p := range n.Pods {
			w.hosts = append(w.hosts, p.Host)
		}
	}
	for _, set := range [][2]string{
		{"tracing_on", "0"}, {"trace", ""}, {"trace_clock", "boot"}, {"buffer_size_kb", "16384"}, {"options/hash-ptr", "0"},
		{"events/skb/kfree_skb/enable", "1"}, {"events/sched/sched_process_exec/enable", "1"}, {"tracing_on", "1"},
	} {
		if err := os.WriteFile(tracing+set[0], []byte(set[1]), 0o600); err != nil {
			t.Logf("the kernel does not trace drops: %v", err)
		}
	}
	// The kernel's WireGuard tells its handshakes and keypairs.
	if err := os.WriteFile("/proc/dynamic_debug/control", []byte("module wireguard +p"), 0o600); err != nil {
		t.Logf("the kernel does not tell handshakes: %v", err)
	}
	w.before = w.counters()
	return w
}

// note writes a line into the trace.
func (w *witness) note(format string, args ...any) {
	_ = os.WriteFile(tracing+"trace_marker", fmt.Appendf(nil, format+"\n", args...), 0o600) // without a tracer there is no trace
}

// counters reads the counters of every host, by "host file name".
func (w *witness) counters() map[string]uint64 {
	all := map[string]uint64{}
	for _, h := range w.hosts {
		_ = h.Do(func() error { // the thread is in the host's network namespace; a file that is missing has no counters
			for _, file := range []string{"snmp6", "snmp", "netstat", "dev", "stat/nf_conntrack"} {
				text, _ := os.ReadFile("/proc/thread-self/net/" + file)
				for name, n := range counterLines(file, string(text)) {
					all[h.Name+" "+file+" "+name] = n
				}
			}
			return nil
		})
	}
	return all
}

// counterLines reads a file of counters: a name and a number in a line, or a line of names before a line of numbers, or
// numbers behind the name of a device.
func counterLines(file, text string) map[string]uint64 {
	out := map[string]uint64{}
	var names []string
	for line := range strings.Lines(text) {
		words := strings.Fields(strings.ReplaceAll(line, ":", " "))
		for i, word := range words[min(1, len(words)):] {
			n, err := strconv.ParseUint(word, 10, 64)
			switch {
			case err != nil:
			case file == "snmp6":
				out[words[0]] = n
			case file == "dev":
				out[words[0]+" "+[]string{"rx bytes", "rx packets", "rx errors", "rx dropped", "rx fifo", "rx frame", "rx compressed", "rx multicast",
					"tx bytes", "tx packets", "tx errors", "tx dropped", "tx fifo", "tx collisions", "tx carrier", "tx compressed"}[min(i, 15)]] = n
			case i+1 < len(names) && names[0] == words[0]:
				out[words[0]+" "+names[i+1]] = n
			}
		}
		names = words
	}
	return out
}

// symbols names addresses of the kernel's code.
type symbols struct {
	at    []uint64
	names []string
}

func readSymbols() symbols {
	var s symbols
	text, _ := os.ReadFile("/proc/kallsyms")
	type symbol struct {
		at   uint64
		name string
	}
	var all []symbol
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 3 || !strings.EqualFold(words[1], "t") {
			continue
		}
		at, _ := strconv.ParseUint(words[0], 16, 64)
		all = append(all, symbol{at, words[2]})
	}
	slices.SortFunc(all, func(a, b symbol) int { return cmp.Compare(a.at, b.at) })
	for _, x := range all {
		s.at, s.names = append(s.at, x.at), append(s.names, x.name)
	}
	return s
}

// name returns the function that holds an address.
func (s symbols) name(at uint64) string {
	i, found := slices.BinarySearch(s.at, at)
	if !found {
		i--
	}
	if i < 0 {
		return fmt.Sprintf("%#x", at)
	}
	return fmt.Sprintf("%s+%#x", s.names[i], at-s.at[i])
}

// report logs the drops of IP packets, the marks between them, and the counters that changed.
func (w *witness) report(t *testing.T) {
	t.Helper()
	after := w.counters()
	_ = os.WriteFile(tracing+"tracing_on", []byte("0"), 0o600)
	keys := make([]string, 0, len(after))
	for k, n := range after {
		if n != w.before[k] {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		t.Logf("counter %s: %+d", k, int64(after[k]-w.before[k]))
	}
	trace, err := os.ReadFile(tracing + "trace")
	if err != nil {
		t.Logf("no trace: %v", err)
		return
	}
	s := readSymbols()
	location := regexp.MustCompile(`location=(?:0x)?([0-9a-f]{8,16})`)
	for line := range strings.Lines(string(trace)) {
		if strings.Contains(line, "kfree_skb") && !strings.Contains(line, "protocol=34525") && !strings.Contains(line, "protocol=2048 ") {
			continue // of netlink and of unix sockets
		}
		line = location.ReplaceAllStringFunc(line, func(match string) string {
			at, err := strconv.ParseUint(location.FindStringSubmatch(match)[1], 16, 64)
			if err != nil {
				return match
			}
			return "location=" + s.name(at)
		})
		if strings.Contains(line, "kfree_skb") || strings.Contains(line, "marker") || strings.Contains(line, "tracing_mark_write") || strings.Contains(line, "sched_process_exec") {
			t.Logf("trace %s", strings.TrimRight(line, "\n"))
		}
	}
	log := make([]byte, 1<<20)
	n, err := unix.Klogctl(unix.SYSLOG_ACTION_READ_ALL, log)
	for line := range strings.Lines(string(log[:max(n, 0)])) {
		if strings.Contains(line, "wireguard:") {
			t.Logf("kernel log %s", strings.TrimRight(line, "\n"))
		}
	}
	if err != nil {
		t.Logf("no kernel log: %v", err)
	}
	if stats, err := filepath.Glob(tracing + "per_cpu/cpu*/stats"); err == nil {
		for _, path := range stats {
			text, _ := os.ReadFile(path)
			t.Logf("%s: %s", path, strings.Join(strings.Fields(string(text)), " "))
		}
	}
}
