package iptables

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/loden-net/loden/network/firewall/rule"
)

// line is a listed rule.
type line struct {
	text    string    // as listed, without "-A chain" and without counters: fit for -D
	comment string    // the first comment, if any
	target  string    // of -j or -g, if any
	rule    rule.Rule // the rule that Loden would have written it from, when known
	known   bool      // the rule is of a form that Loden writes
	narrow  bool      // the rule matches some packets only, in a way that may spare the pods'
	packets uint64
}

// table holds every chain of an iptables table with its rules in order.
type table map[string][]line

// parseTable reads the listing of `iptables -t TABLE -S -v`. It skips lines of an unknown kind: rules of
// other programs must not stop Loden.
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

// split cuts a listed rule into words, as a shell would: quotes group, and a backslash keeps the next
// character as it is.
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

// parser reads the words of a rule.
type parser struct {
	line
	words  []string
	next   int      // the word to read next
	kept   []string // the words that belong into the text
	not    bool     // the word before was "!"
	tcp    bool     // the protocol is TCP
	judged bool     // a verdict was read: later options are the target's
}

// parseLine reads the words of a rule after its chain.
func parseLine(words []string) line {
	p := parser{line: line{known: true}, words: words}
	for p.next < len(words) {
		start := p.next
		word := p.word()
		if word == "-c" { // counters: packets and bytes
			p.packets, _ = strconv.ParseUint(p.word(), 10, 64)
			p.word()
			continue
		}
		p.option(word)
		p.not = word == "!"
		for _, w := range words[start:p.next] {
			p.kept = append(p.kept, quote(w))
		}
	}
	p.text = strings.Join(p.kept, " ")
	p.known = p.known && p.judged && p.tcp == (p.rule.TCP != 0) // Loden writes no rule that only counts
	return p.line
}

// word takes the next word, or "" at the end.
func (p *parser) word() string {
	if p.next >= len(p.words) {
		return ""
	}
	p.next++
	return p.words[p.next-1]
}

// option reads an option with its argument.
func (p *parser) option(word string) {
	r := &p.rule
	switch word {
	case "!":
	case "-s", "-d":
		p.address(word)
	case "-i", "-o":
		name := p.word()
		if word == "-i" {
			r.InIface = name
		} else {
			r.OutIface = name
		}
		p.known = p.known && !p.not
		p.narrow = p.narrow || !p.not // "any interface but X" includes the pods' or the tunnel
	case "-m":
		match := p.word()
		p.known = p.known && slices.Contains([]string{"mark", "conntrack", "comment", "tcp", "addrtype"}, match)
		p.narrow = p.narrow || !slices.Contains([]string{"state", "conntrack", "comment"}, match)
	case "-p":
		p.tcp, p.narrow = p.word() == "tcp" && !p.not, true
		p.known = p.known && p.tcp
	case "--dport":
		port, err := strconv.ParseUint(p.word(), 10, 16)
		r.TCP, p.known, p.narrow = uint16(port), p.known && err == nil && !p.not, true
	case "--dst-type":
		r.Local, p.narrow = p.word() == localTypes, true
		p.known = p.known && r.Local && !p.not
	case "--mark":
		mark, ok := parseMark(p.word())
		r.Mark, p.known = mark, p.known && ok && !p.not
	case "--ctstate", "--state":
		states := p.word()
		r.Translated = states == translated
		p.known = p.known && r.Translated && !p.not && word == "--ctstate"
		p.narrow = p.narrow || slices.Contains(strings.Split(states, ","), "NEW") == p.not
	case "--comment":
		r.Comment = p.word()
		if p.comment == "" {
			p.comment = r.Comment
		}
	case "-j", "-g":
		p.target, p.judged = p.word(), true
		p.judge(word)
	case "--random-fully":
		p.known = p.known && r.Verdict == rule.Masquerade
		r.Verdict = rule.MasqueradeRandom
	default:
		p.known = false
		p.narrow = p.narrow || !p.judged
	}
}

// address reads a source or destination.
func (p *parser) address(flag string) {
	prefix, err := netip.ParsePrefix(p.word())
	n := rule.Net{Prefix: prefix, Not: p.not}
	if flag == "-s" {
		p.rule.Src = n
	} else {
		p.rule.Dst = n
	}
	p.known = p.known && err == nil
	p.narrow = p.narrow || err != nil
}

// judge reads the target.
func (p *parser) judge(flag string) {
	if flag == "-g" {
		p.rule.Verdict, p.rule.Chain = rule.Goto, p.target
		return
	}
	verdicts := map[string]rule.Verdict{"RETURN": rule.Return, "ACCEPT": rule.Accept, "MASQUERADE": rule.Masquerade, "DROP": rule.Drop}
	v, ok := verdicts[p.target]
	p.rule.Verdict, p.known = v, p.known && ok
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
