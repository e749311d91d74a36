package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/loden-net/loden/network/node"
	"github.com/loden-net/loden/network/probe"
)

// statusView is how a report is printed.
type statusView struct {
	paint paint
	width int       // columns
	all   bool      // list every peer
	now   time.Time // of the report
}

// maxPeers is how many peers are listed; of more peers only those that are not up, and a
// summary.
const maxPeers = 20

// printReport writes the report for people: the verdict, the problems with their remedies, the
// node, and the peers.
func printReport(out io.Writer, r node.Report, v statusView) error {
	var b strings.Builder
	v.verdict(&b, r)
	for _, f := range r.Findings() {
		if f.State == node.Bad || f.State == node.Warn {
			printFinding(&b, v.paint, v.width, f)
		}
	}
	v.facts(&b, r)
	v.peers(&b, r)
	_, err := io.WriteString(out, b.String())
	return err
}

// verdict writes the first line: the node, its state, and the summary.
func (v statusView) verdict(b *strings.Builder, r node.Report) {
	word := v.paint.green("ready")
	switch {
	case !r.Ready:
		word = v.paint.red("NOT READY")
	case !r.Healthy():
		word = v.paint.yellow("DEGRADED")
	}
	parts := []string{peerSummary(r.Peers)}
	if r.Store.Up {
		parts = append(parts, "etcd up")
	} else {
		parts = append(parts, "etcd AWAY"+sinceText(r.Store.Since, v.now))
	}
	parts = append(parts, guardWord(r.Firewall))
	if r.Engine.Silent {
		parts = append(parts, "engine does not answer")
	}
	fmt.Fprintf(b, "%s  %s  %s\n", v.paint.bold(r.Node), word, wrap(strings.Join(parts, " · "), v.width-len(r.Node)-13, 2))
}

func sinceText(t, now time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " for " + span(now.Sub(t))
}

// peerSummary counts the peers by state.
func peerSummary(peers []node.PeerReport) string {
	if len(peers) == 0 {
		return "no peer"
	}
	count := map[string]int{}
	for _, p := range peers {
		count[p.State]++
	}
	if count[probe.Up] == len(peers) {
		return counts(len(peers), "peer") + " up"
	}
	parts := []string{fmt.Sprintf("%d of %s up", count[probe.Up], counts(len(peers), "peer"))}
	for _, s := range []string{probe.Down, probe.OneWay, probe.MTU, probe.Degraded, probe.Unknown} {
		if n := count[s]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return strings.Join(parts, ", ")
}

// guardWord tells in a few words what the packet guard has caught.
func guardWord(f node.FirewallReport) string {
	var caught uint64
	for _, c := range f.Clear {
		caught += c.Packets
	}
	switch {
	case f.Guard == "off":
		return "guard off"
	case caught > 0:
		return fmt.Sprintf("guard caught %d packets in plaintext", caught)
	}
	return "guard clean"
}

// facts writes the node's own settings, a line each.
func (v statusView) facts(b *strings.Builder, r node.Report) {
	b.WriteByte('\n')
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(b, "  %s%s\n", v.paint.dim(fmt.Sprintf("%-9s ", name)), wrap(text, v.width-12, 12))
		}
	}
	line("pods", fmt.Sprintf("%s of %s", join(r.Subnets), join(r.Networks)))
	line("tunnel", fmt.Sprintf("%s, UDP %d, MTU %d, key %s", r.Interface, r.Port, r.MTU, r.PublicKey))
	line("announced", fmt.Sprintf("%s by %s", join(r.Endpoints), uplinks(r)))
	line("engine", strings.Join(slices.DeleteFunc([]string{r.Engine.Kind + " (" + r.Engine.Reason + ")", dropped(r.Engine), offloads(r.Engine)}, func(s string) bool { return s == "" }), "; "))
	line("rules", fmt.Sprintf("%s (%s), guard %s: %s", r.Firewall.Kind, r.Firewall.Reason, r.Firewall.Guard, caught(r.Firewall)))
	line("etcd", storeWord(r.Store)+" "+storeDetail(r.Store, v.now))
	line("passes", fmt.Sprintf("%d, %d incomplete", r.Passes.Total, r.Passes.Failed))
}

// uplinks prints the interfaces of the uplinks, each once.
func uplinks(r node.Report) string {
	var names []string
	for _, u := range r.Uplinks.All() {
		if !slices.Contains(names, u) {
			names = append(names, u)
		}
	}
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, " and ")
}

// wideColumns is the width from which on the peers' endpoints and subnets are listed too.
const wideColumns = 120

// peers writes the table of the peers. Of many peers only those are listed that are not up.
func (v statusView) peers(b *strings.Builder, r node.Report) {
	list := r.Peers
	if len(list) > maxPeers && !v.all {
		list = slices.DeleteFunc(slices.Clone(list), func(p node.PeerReport) bool { return p.State == probe.Up })
	}
	shown := list
	if !v.all {
		shown = list[:min(len(list), maxPeers)]
	}
	if len(shown) > 0 {
		v.table(b, shown)
	}
	switch hidden := len(r.Peers) - len(shown); {
	case hidden > 0 && len(shown) < len(list):
		fmt.Fprintf(b, "\n  and %d more peers, %d of them not up (--all lists every peer)\n", hidden, len(list)-len(shown))
	case hidden > 0:
		fmt.Fprintf(b, "\n  and %d more peers, all up (--all lists every peer)\n", hidden)
	}
}

// table writes a row for each peer.
func (v statusView) table(b *strings.Builder, peers []node.PeerReport) {
	wide := v.width >= wideColumns
	head := []string{"PEER", "STATE", "RTT", "LOSS", "MTU", "HANDSHAKE", "IN/OUT B/s"}
	if wide {
		head = append(head, "RECEIVED/SENT", "ENDPOINT", "SUBNETS")
	}
	g := &grid{}
	var bold []cell
	for _, h := range head {
		bold = append(bold, cell{h, v.paint.bold})
	}
	g.add(bold...)
	for _, p := range peers {
		name := peerName(p)
		if !wide {
			name = clip(name, 20)
		}
		row := plain(name, p.State, rtt(p), loss(p), pathMTU(p), handshake(v.now, p.Handshake), rates(p))
		row[1].colour = func(s string) string { return v.paint.state(p.State, s) }
		if wide {
			row = append(row, plain(size(p.Received)+"/"+size(p.Sent), p.Endpoint, join(p.Subnets))...)
		}
		g.add(row...)
	}
	b.WriteString("\n" + g.String())
}

// missing stands for a value that was not measured.
const missing = "–"

// rtt prints the median round trip of each family, IPv4 first.
func rtt(p node.PeerReport) string {
	var parts []string
	for _, path := range p.Paths {
		if path.RTT50 > 0 {
			parts = append(parts, milliseconds(path.RTT50))
		} else {
			parts = append(parts, missing)
		}
	}
	if len(slices.DeleteFunc(slices.Clone(parts), func(s string) bool { return s == missing })) == 0 {
		return missing
	}
	return strings.Join(parts, "/") + " ms"
}

// milliseconds prints seconds in two or three digits of milliseconds.
func milliseconds(seconds float64) string {
	if ms := seconds * 1000; ms < 10 {
		return fmt.Sprintf("%.1f", ms)
	}
	return fmt.Sprintf("%.0f", seconds*1000)
}

// loss prints the worst loss of the families.
func loss(p node.PeerReport) string {
	worst, probed := 0.0, false
	for _, path := range p.Paths {
		worst, probed = max(worst, path.Loss), probed || path.State != probe.Unknown
	}
	if !probed {
		return missing
	}
	return fmt.Sprintf("%.0f%%", worst*100)
}

// pathMTU prints the smallest measured MTU of the families.
func pathMTU(p node.PeerReport) string {
	least := 0
	for _, path := range p.Paths {
		if path.MTU > 0 && (least == 0 || path.MTU < least) {
			least = path.MTU
		}
	}
	if least == 0 {
		return missing
	}
	return fmt.Sprint(least)
}

func handshake(now, t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return span(now.Sub(t))
}

// rates prints the bytes per second in each direction.
func rates(p node.PeerReport) string {
	if !p.Rated {
		return missing
	}
	return short(p.ReceivedRate) + "/" + short(p.SentRate)
}

// short prints a number in few columns.
func short(f float64) string {
	const unit = 1000
	if f < unit {
		return fmt.Sprintf("%.0f", f)
	}
	i := -1
	for ; f >= unit && i < 4; i++ {
		f /= unit
	}
	if f < 10 {
		return fmt.Sprintf("%.1f%c", f, "kMGTP"[i])
	}
	return fmt.Sprintf("%.0f%c", f, "kMGTP"[i])
}
