package iptables

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/loden-net/loden/network/firewall/rule"
)

// line is one rule of the kernel's, as listed.
type line struct {
	text    string    // as listed, without "-A chain" and without counters: fit for -D
	comment string    // the first comment, if any
	target  string    // of -j or -g, if any
	rule    rule.Rule // what we would have written it from, when known
	known   bool      // the rule is of a form that we write
	packets uint64
}

// table is what one table holds: every chain with its rules in order.
type table map[string][]line

// parseTable reads the listing of `iptables -t TABLE -S -v`. Lines of no known kind are
// skipped: what other programs write must not stop us.
func parseTable(listing []string) table {
	t := table{}
	for _, text := range listing {
		words := split(text)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "-P", "-N":
			if _, ok := t[words[1]]; !ok {
				t[words[1]] = nil
			}
		case "-A":
			t[words[1]] = append(t[words[1]], parseLine(words[2:]))
		}
	}
	return t
}

// split cuts a listed rule into words, as a shell would: quotes group, a backslash takes
// the next character as it is.
func split(text string) []string {
	var words []string
	var word strings.Builder
	quoted, started := false, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			word.WriteByte(text[i])
			started = true
		case c == '"':
			quoted, started = !quoted, true
		case c == ' ' && !quoted:
			if started {
				words = append(words, word.String())
				word.Reset()
			}
			started = false
		default:
			word.WriteByte(c)
			started = true
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words
}

// parseLine reads the words of one rule after its chain.
func parseLine(words []string) line {
	l := line{known: true}
	l.rule.Verdict = none
	var kept []string
	not := false
	for i := 0; i < len(words); i++ {
		word := words[i]
		next := func() string {
			if i+1 < len(words) {
				i++
				return words[i]
			}
			return ""
		}
		if word == "-c" { // counters: packets and bytes
			l.packets, _ = strconv.ParseUint(next(), 10, 64)
			next()
			continue
		}
		start := i
		l.take(word, not, next)
		not = word == "!"
		for _, w := range words[start : i+1] {
			kept = append(kept, quote(w))
		}
	}
	l.text = strings.Join(kept, " ")
	if l.rule.Verdict == none {
		l.known = false
	}
	return l
}

// none marks a parsed rule without a verdict: only counting, which we never write.
const none = rule.Verdict(255)

// take reads one option, with its argument from next, into the line.
func (l *line) take(word string, not bool, next func() string) {
	r := &l.rule
	switch word {
	case "!":
	case "-s", "-d":
		p, err := netip.ParsePrefix(next())
		n := rule.Net{Prefix: p, Not: not}
		if word == "-s" {
			r.Src = n
		} else {
			r.Dst = n
		}
		l.known = l.known && err == nil
	case "-i", "-o":
		if word == "-i" {
			r.InIface = next()
		} else {
			r.OutIface = next()
		}
		l.known = l.known && !not
	case "-m":
		switch next() {
		case "mark", "conntrack", "comment":
		default:
			l.known = false
		}
	case "--mark":
		mark, ok := parseMark(next())
		r.Mark, l.known = mark, l.known && ok && !not
	case "--ctstate":
		r.Translated = next() == translated
		l.known = l.known && r.Translated && !not
	case "--comment":
		r.Why = next()
		if l.comment == "" {
			l.comment = r.Why
		}
	case "-j", "-g":
		l.target = next()
		l.judge(word)
	case "--random-fully":
		l.known = l.known && r.Verdict == rule.Masquerade
		r.Verdict = rule.MasqueradeRandom
	default:
		l.known = false
	}
}

// judge reads the target.
func (l *line) judge(flag string) {
	if flag == "-g" {
		l.rule.Verdict, l.rule.Chain = rule.Goto, l.target
		return
	}
	switch l.target {
	case "RETURN":
		l.rule.Verdict = rule.Return
	case "ACCEPT":
		l.rule.Verdict = rule.Accept
	case "MASQUERADE":
		l.rule.Verdict = rule.Masquerade
	case "DROP":
		l.rule.Verdict = rule.Drop
	default:
		l.known = false
	}
}

func parseMark(text string) (rule.Mark, bool) {
	value, mask, found := strings.Cut(text, "/")
	v, err1 := strconv.ParseUint(value, 0, 32)
	m := uint64(0xffffffff)
	var err2 error
	if found {
		m, err2 = strconv.ParseUint(mask, 0, 32)
	}
	return rule.Mark{Value: uint32(v), Mask: uint32(m)}, err1 == nil && err2 == nil
}

// quote writes a word so that split and iptables-restore read it back.
func quote(word string) string {
	if word != "" && !strings.ContainsAny(word, " \"\\'\t") {
		return word
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(word) + `"`
}
