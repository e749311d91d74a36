package iptables

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/firewall/rule"
)

// legacyInUse reports whether the old packet filter has tables in the network namespace of the calling
// thread. To list a table that does not exist would make it.
func legacyInUse(f opt.Family) (bool, error) {
	file := "/proc/thread-self/net/ip_tables_names"
	if f == opt.V6 {
		file = "/proc/thread-self/net/ip6_tables_names"
	}
	names, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return len(strings.Fields(string(names))) > 0, err
}

// LegacySave returns the path of the tool that lists the old packet filter's rules, or "" where it is not
// installed. It may start a process to learn the variant of a tool.
func LegacySave(f opt.Family) string {
	path, err := exec.LookPath(Of(f, Legacy).Name + "-save")
	if err != nil {
		return ""
	}
	return path
}

// FingerprintLegacy reads the rules that iptables-legacy keeps in tables of its own, with the tool that
// save returns: a process, and no process where there are no such tables. Without the tool the rules are
// unknown.
func FingerprintLegacy(o rule.Owner, f opt.Family, save func() string) (Fingerprint, error) {
	p := newFingerprint(o)
	saved, ok, err := listLegacy(f, save)
	p.Unknown = !ok
	p.read(saved)
	return p, err
}

// ListLegacy lists the rules of iptables-legacy as FingerprintLegacy does. Without the tool, and without
// tables, there are none.
func ListLegacy(f opt.Family, save func() string) (Saved, error) {
	saved, _, err := listLegacy(f, save)
	return ParseSaved(f, saved), err
}

// listLegacy returns the listing, which is empty where there are no tables; ok is false when there are
// tables and no tool.
func listLegacy(f opt.Family, save func() string) (saved string, ok bool, err error) {
	used, err := legacyInUse(f)
	if err != nil || !used {
		return "", true, err
	}
	path := save()
	if path == "" {
		return "", false, nil
	}
	out, err := exec.Command(path).Output()
	if err != nil {
		return "", true, fmt.Errorf("list %s rules with %s: %w", f, path, err)
	}
	return string(out), true, nil
}

// read reads the output of iptables-save: tables ("*nat"), chains with policy and counters
// (":INPUT ACCEPT [0:0]") and rules ("-A INPUT …"), without counters unless they are asked for.
func (p *Fingerprint) read(saved string) {
	var b strings.Builder
	table := ""
	for text := range strings.Lines(saved) {
		text = strings.TrimRight(text, "\n")
		switch {
		case strings.HasPrefix(text, "*"):
			table = text[1:]
		case strings.HasPrefix(text, ":"):
			text, _, _ = strings.Cut(text, " [")
			if strings.HasSuffix(text, " -") { // a chain that some program made
				p.Used++
			}
		case strings.HasPrefix(text, "-A "):
			p.Used++
		default: // a comment with the time, or COMMIT
			continue
		}
		p.trace(table, text)
		b.WriteString(text + "\n")
	}
	p.Text = b.String()
}
