package trace

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
)

// Towards looks up the route of a packet for a pod of another node: it must leave by the tunnel.
// from is a pod of this node, or an address of the node itself; in is the interface by which the
// packet arrives from the pod, "" for a packet of the node.
func (h Host) Towards(from, to netip.Addr, in string) Finding {
	return h.route("route to the tunnel", Query{Src: from, Dst: to, In: in}, h.Tunnel)
}

// Inwards looks up the route of a packet out of the tunnel to a pod of this node: it must leave
// by the pods' bridge.
func (h Host) Inwards(from, to netip.Addr, bridge string) Finding {
	return h.route("route to the pod", Query{Src: from, Dst: to, In: h.Tunnel}, bridge)
}

// route looks a packet up and judges the answer.
func (h Host) route(what string, q Query, want string) Finding {
	r, err := h.Kernel.Lookup(q)
	if err != nil {
		return Finding{What: what, State: Unknown, Detail: err.Error()}
	}
	f := opt.FamilyOf(q.Dst)
	if r.Refused == nil && r.Kind == "unicast" && r.Link == want {
		return Finding{What: what, State: Good, Detail: fmt.Sprintf("%s goes out by %s (route %s, table %s)", q.Dst, r.Link, r.Dst, tableName(r.Table))}
	}
	if r.Refused != nil {
		return h.refused(what, q, r.Refused)
	}
	rules, _ := h.Kernel.Rules(f) // without the list of rules the finding names the table alone
	return judgeRoute(what, q, r, rules, want, h.networkOf(q.Dst))
}

// networkOf returns the overlay of an address's family, or a prefix of the address alone.
func (h Host) networkOf(a netip.Addr) netip.Prefix {
	return h.Network.Of(opt.FamilyOf(a)).Or(netip.PrefixFrom(a, a.BitLen()))
}

// judgeRoute says why a packet does not leave by the wanted interface, and how to mend it. It is
// pure.
func judgeRoute(what string, q Query, r Route, rules []Rule, want string, network netip.Prefix) Finding {
	f := opt.FamilyOf(q.Dst)
	finding := Finding{What: what, State: Bad}
	text := fmt.Sprintf("%s route %s", r.Kind, r.Dst)
	if r.Kind == "unicast" {
		text = fmt.Sprintf("route %s dev %s", r.Dst, r.Link)
	}
	switch rule, foreign := ruleOf(r.Table, rules); {
	case r.Kind == "local":
		finding.Detail = fmt.Sprintf("%s is an address of this host itself, on %s", q.Dst, r.Link)
		finding.Remedy = fmt.Sprintf("remove the address: %s addr del %s dev %s", ip(f), r.Dst, r.Link)
	case foreign:
		finding.Detail = fmt.Sprintf("packets to %s do not go out by %s: the rule %q (priority %d) sends them to table %d, and its %s wins", q.Dst, want, rule.Text, rule.Priority, rule.Table, text)
		finding.Remedy = fmt.Sprintf("%s rule add to %s lookup main priority %d", ip(f), network, max(rule.Priority-1, 1))
	case r.Table != mainTable && r.Table != 0:
		finding.Detail = fmt.Sprintf("packets to %s do not go out by %s: the %s of table %d wins", q.Dst, want, text, r.Table)
		finding.Remedy = fmt.Sprintf("%s route del %s table %d", ip(f), r.Dst, r.Table)
	case r.Kind != "unicast" && r.Dst == network:
		finding.Detail = fmt.Sprintf("the tunnel's route to %s is missing, so Loden's %s answers", network, text)
		finding.Remedy = "start `loden run`, which adds the route; `loden status` says what keeps it from that"
	default:
		finding.Detail = fmt.Sprintf("packets to %s do not go out by %s: the %s wins", q.Dst, want, text)
		finding.Remedy = fmt.Sprintf("%s route del %s", ip(f), r.Dst)
		if r.Kind == "unicast" {
			finding.Remedy += " dev " + r.Link
		}
	}
	return finding
}

// ruleOf returns the first rule that leads to a table; false for the tables that every host has.
func ruleOf(table int, rules []Rule) (Rule, bool) {
	if table == mainTable || table == localTable || table == 0 {
		return Rule{}, false
	}
	for _, r := range rules {
		if r.Table == table {
			return r, true
		}
	}
	return Rule{}, false
}

// refused judges an answer of the kernel that is an error.
func (h Host) refused(what string, q Query, err error) Finding {
	f := opt.FamilyOf(q.Dst)
	finding := Finding{What: what, State: Bad, Detail: fmt.Sprintf("the kernel refuses packets from %s to %s: %v", q.Src, q.Dst, err)}
	switch {
	case errors.Is(err, unix.EXDEV):
		finding.Detail = fmt.Sprintf("the reverse path filter drops packets from %s that arrive by %s, since the route back does not lead there", q.Src, q.In)
		finding.Remedy = fmt.Sprintf("mend the route to %s, or: sysctl -w net.ipv4.conf.%s.rp_filter=2", q.Src, q.In)
	case errors.Is(err, unix.EACCES):
		finding.Remedy = fmt.Sprintf("a rule or route of the type prohibit matches: %s rule list", ip(f))
	default:
		finding.Remedy = fmt.Sprintf("there is no route: %s route get %s; start `loden run`, which adds the overlay's route", ip(f), q.Dst)
	}
	return finding
}

// tableName names a table as ip-route(8) does.
func tableName(table int) string {
	switch table {
	case mainTable, 0:
		return "main"
	case localTable:
		return "local"
	}
	return fmt.Sprint(table)
}
