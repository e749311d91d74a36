package etcd

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/subnet"
)

var update = flag.Bool("update", false, "write the transcripts' answers anew")

// Each file of testdata holds cases: the store as it is, the node that asks, and after a
// line "----" the answer of decide. testdata/README.md explains the lines.
func TestDecisionsAreThoseOfTheTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runTranscript(t, file) })
	}
}

func runTranscript(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(data), "\n== ")
	written := head
	for _, text := range strings.Split(rest, "\n== ") {
		question, want, _ := strings.Cut(text, "\n----")
		title, lines, _ := strings.Cut(question, "\n")
		got := newScene(t).play(head + "\n" + lines)
		if strings.TrimSpace(got) != strings.TrimSpace(want) && !*update {
			t.Errorf("%s\n got:\n%s\nwant:\n%s", title, got, want)
		}
		written += "\n== " + question + "\n----\n" + got
	}
	if *update {
		if err := os.WriteFile(file, []byte(written), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// scene is the content of a case.
type scene struct {
	t       *testing.T
	keys    layout
	store   *fakeStore
	want    Want
	granted map[etcdID]int64
	reserve bool
	running bool
	orphans string   // "", "young" or "old": how long the survey has seen orphans, if it looks for them
	race    []string // lines of keys that change between survey and transaction
}

const sceneTTL = 86400 // seconds

func newScene(t *testing.T) *scene {
	return &scene{t: t, keys: layout{""}, store: newFakeStore(), granted: map[etcdID]int64{}}
}

// play reads the lines and returns the answer.
func (s *scene) play(lines string) string {
	for _, line := range strings.Split(lines, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			s.line(line)
		}
	}
	seen := s.store.survey(s.keys, s.want, s.granted)
	seen.running = s.running
	if s.orphans != "" {
		seen.orphans = s.store.orphans(s.keys, seen, s.orphans == "old")
	}
	var out strings.Builder
	d, err := s.decide(seen, 0)
	out.WriteString(s.describe(d, err))
	if len(s.race) == 0 || err != nil {
		return out.String()
	}
	for _, line := range s.race {
		s.line(line)
	}
	conflicts, ok := s.store.commit(d.write, 999)
	if ok {
		return out.String() + "the transaction succeeds all the same\n"
	}
	learned := seen.learn(conflicts)
	if seen.suspect {
		out.WriteString("an owner key without a lease was in the way: a new survey looks for all such keys\n")
		seen = s.store.survey(s.keys, s.want, s.granted)
		seen.orphans = s.store.orphans(s.keys, seen, false)
		d, err = s.decide(seen, 0)
		return out.String() + s.describe(d, err)
	}
	if !learned {
		out.WriteString("the transaction fails: a new survey\n")
		seen = s.store.survey(s.keys, s.want, s.granted)
	} else {
		out.WriteString("the transaction fails: its conflict is learned\n")
	}
	d, err = s.decide(seen, 1)
	return out.String() + s.describe(d, err)
}

func (s *scene) decide(seen survey, try int) (decision, error) {
	if s.reserve {
		return decideReservation(seen, try)
	}
	return decide(seen, try, time.Unix(5000, 0), sceneTTL)
}

// line reads a line of a case.
func (s *scene) line(line string) {
	word, rest, _ := strings.Cut(line, " ")
	f := strings.Fields(rest)
	switch word {
	case "network":
		n, err := config.ParseNetwork([]byte(rest))
		s.check(line, err)
		s.want.Network = n
	case "node": // node NAME key K at ADDRESS...
		s.want.Lease = s.lease(f)
	case "orphans":
		s.orphans = rest
	case "running":
		s.running = true
	case "reserve":
		s.reserve, s.want.Lease = true, subnet.Lease{Node: f[0]}
	case "prefer":
		p, err := subnet.ParseKey(rest)
		s.check(line, err)
		s.want.Prefer = p
	case "avoid":
		s.want.Avoid = append(s.want.Avoid, netip.MustParsePrefix(rest))
	case "granted":
		id, _ := strconv.Atoi(f[0])
		seconds, _ := strconv.Atoi(f[1])
		s.granted[etcdID(id)] = int64(seconds)
	case "race":
		s.race = append(s.race, rest)
	default: // REVISION KEY [on ID] = VALUE
		s.key(line)
	}
}

func (s *scene) key(line string) {
	left, value, ok := strings.Cut(line, " = ")
	f := strings.Fields(left)
	revision, err := strconv.Atoi(f[0])
	s.check(line, err)
	if !ok {
		s.t.Fatalf("line %q has no value", line)
	}
	id := forGood
	if len(f) == 4 {
		n, err := strconv.Atoi(f[3])
		s.check(line, err)
		id = etcdID(n)
		if _, known := s.granted[id]; !known {
			s.granted[id] = sceneTTL
		}
	}
	key := "/" + f[1]
	words := strings.Fields(value)
	switch words[0] {
	case "lease": // lease NAME key K at ADDRESS...
		l := s.lease(words[1:])
		l.Subnets, err = subnet.ParseKey(strings.TrimPrefix(key, s.keys.leases()))
		s.check(line, err)
		l.Reserved, l.Claimed = id == forGood, 100
		value = string(subnet.FormatValue(l))
	case "record": // record KEYFORM K
		value = recordOf(words[1], subnet.Lease{Key: sceneKey(words[2])}).String()
	case "flannel": // flannel TYPE ADDRESS
		value = fmt.Sprintf(`{"PublicIP":%q,"PublicIPv6":null,"BackendType":%q,"BackendData":{"VNI":1,"VtepMAC":"0e:2a:00:00:00:16"}}`, words[2], words[1])
	}
	s.store.put(key, value, id, int64(revision))
}

// lease reads NAME key K at ADDRESS...; "-" stands for no name or no key.
func (s *scene) lease(f []string) subnet.Lease {
	l := subnet.Lease{Node: strings.Trim(f[0], "-")}
	for i := 1; i+1 < len(f); i++ {
		switch f[i] {
		case "key":
			l.Key = sceneKey(f[i+1])
		case "at":
			for _, text := range f[i+1:] {
				a := netip.MustParseAddr(text)
				l.Endpoints = l.Endpoints.With(opt.FamilyOf(a), netip.AddrPortFrom(a, 51820))
			}
		}
	}
	return l
}

func (s *scene) check(line string, err error) {
	if err != nil {
		s.t.Fatalf("line %q: %v", line, err)
	}
}

func sceneKey(name string) wgtypes.Key {
	var k wgtypes.Key
	if name != "-" {
		copy(k[:], strings.Repeat(name, len(k)))
	}
	return k
}

// describe writes a decision; leases stand there as in the questions.
func (s *scene) describe(d decision, err error) string {
	if err != nil {
		text := err.Error()
		for _, name := range []string{"A", "B", "C"} {
			text = strings.ReplaceAll(text, sceneKey(name).String(), name)
		}
		return "error: " + text + "\n"
	}
	if d.kept.Present() {
		return fmt.Sprintf("keep %s; no transaction\n", d.form)
	}
	t := d.write
	t.puts = nil
	for _, p := range d.write.puts {
		if strings.HasPrefix(p.key, s.keys.leases()) {
			p.value = s.brief(p.key, p.value)
		}
		for _, name := range []string{"A", "B", "C"} {
			p.value = strings.ReplaceAll(p.value, sceneKey(name).String(), name)
		}
		t.puts = append(t.puts, p)
	}
	text := t.String()
	if rev, ok := d.since.Get(); ok {
		text += fmt.Sprintf("then look for leases of flannel created after revision %d\n", rev)
	}
	return text
}

func (s *scene) brief(key, value string) string {
	subnets, err := subnet.ParseKey(strings.TrimPrefix(key, s.keys.leases()))
	s.check(key, err)
	l, err := subnet.ParseValue(subnets, []byte(value))
	s.check(value, err)
	text := "lease " + l.Node
	if l.Key != (wgtypes.Key{}) {
		text += " key " + string(l.Key[:1])
	}
	for _, e := range l.Endpoints.All() {
		text += " at " + e.Addr().String()
	}
	text += fmt.Sprintf(" claimed %d", l.Claimed)
	if l.Reserved {
		text += " reserved"
	}
	return text
}
