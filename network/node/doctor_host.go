package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/trace"
	"github.com/loden-net/loden/network/wire"
)

// traced returns this host for the trace package. The overlay is the running node's, else as far
// as subnet.env remembers it.
func (x *examination) traced() trace.Host {
	h := trace.Host{Kernel: x.kernel, Tunnel: x.host.settings.Interface}
	if rep, ok := x.report.Get(); ok && !rep.Subnets.IsZero() {
		h.Network, h.Subnet = rep.Networks, rep.Subnets
		return h
	}
	if env, err := config.LoadEnv(x.host.settings.SubnetFile); err == nil {
		e := env.Or(config.Env{})
		h.Network, h.Subnet = e.Networks, e.Subnets
	}
	return h
}

// podSide judges the pods' bridge, forwarding, and flannel's leftovers.
func (x *examination) podSide() []Finding {
	h := x.traced()
	out := h.CheckBridge()
	links, err := h.Kernel.Links()
	bridge, ok := h.Bridge(links)
	if err == nil && ok {
		out = append(out, h.CheckForwarding(bridge.Name))
	} else {
		out = append(out, h.CheckForwarding(""))
	}
	return append(out, h.CheckFlannel())
}

// cniSide judges the CNI configuration and the plugins of this node.
func (x *examination) cniSide() []Finding {
	c, err := newCNI(x.host.settings)
	if err != nil || c.confDir == "" {
		return []Finding{{What: "CNI", State: Good, Detail: "not installed by loden (no --cni-conf-dir)"}}
	}
	var out []Finding
	earlier, err := c.conflicts()
	if err != nil {
		out = append(out, Finding{What: "CNI", State: Unknown, Detail: err.Error()})
	}
	for _, path := range earlier {
		out = append(out, Finding{What: "CNI", State: Bad, Detail: fmt.Sprintf("%s sorts before %s, so container runtimes use it, and new pods are not loden's", path, conflistName),
			Remedy: "remove it: mv " + path + " " + path + ".off"})
	}
	_, err = os.Stat(filepath.Join(c.confDir, conflistName))
	if errors.Is(err, fs.ErrNotExist) && x.report.Or(Report{}).Ready {
		out = append(out, Finding{What: "CNI", State: Bad, Detail: filepath.Join(c.confDir, conflistName) + " is missing, so no pod can be attached",
			Remedy: "`loden run` writes it at its next pass; look at who removes it"})
	}
	out = append(out, x.pluginFiles(c)...)
	if len(out) == 0 {
		out = append(out, Finding{What: "CNI", State: Good, Detail: filepath.Join(c.confDir, conflistName) + " comes first, and its plugins are there"})
	}
	return out
}

// pluginFiles judges the plugins that loden installs.
func (x *examination) pluginFiles(c cniInstall) []Finding {
	if c.binDir == "" {
		return nil
	}
	var missing []string
	for _, name := range plugins() {
		info, err := os.Stat(filepath.Join(c.binDir, name))
		if err != nil || info.Mode()&0o111 == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 || !x.report.Or(Report{}).Ready {
		return nil
	}
	return []Finding{{What: "CNI", State: Bad, Detail: fmt.Sprintf("the plugins %s are missing in %s, or cannot be run", strings.Join(missing, ", "), c.binDir),
		Remedy: "`loden run` installs them at its next pass; when they stay away give their source with --cni-source-dir"}}
}

// maxRoutes is how many peers' routes are looked up in a family; the routes of further peers
// are the same route of the overlay, unless a foreign route hides them, which is a problem of
// the report.
const maxRoutes = 256

// routes looks up the route to each peer as a packet of a pod meets it, and as a packet of the
// node meets it.
func (x *examination) routes(rep Report) []Finding {
	h := x.traced()
	links, _ := h.Kernel.Links()
	bridge, hasPods := h.Bridge(links)
	var out []Finding
	looked := 0
	for _, p := range rep.Peers {
		for f, subnet := range p.Subnets.All() {
			own, ok := h.Subnet.Of(f).Get()
			if !ok || looked >= maxRoutes {
				continue
			}
			looked++
			to := config.Gateway(subnet).Addr().Next()
			found := h.Towards(own.Addr(), to, "")
			if found.State != Bad && hasPods && slices.Contains(bridge.Addresses, config.Gateway(own)) {
				found = h.Towards(config.Gateway(own).Addr().Next(), to, bridge.Name)
			}
			if found.State != Good {
				found.Detail = "to " + peerTitle(p) + ": " + found.Detail
				out = append(out, found)
			}
		}
	}
	if len(out) == 0 {
		return []Finding{{What: "route to the tunnel", State: Good, Detail: fmt.Sprintf("%d lookups with the rules of this host, all by %s", looked, h.Tunnel)}}
	}
	return collapse(out)
}

// collapse keeps the first of the findings with the same remedy, and counts the rest.
func collapse(all []Finding) []Finding {
	var out []Finding
	count := map[string]int{}
	for _, f := range all {
		if count[f.Remedy]++; count[f.Remedy] == 1 {
			out = append(out, f)
		}
	}
	for i, f := range out {
		if n := count[f.Remedy]; n > 1 {
			out[i].Detail += fmt.Sprintf(" (and %d more routes with this remedy)", n-1)
		}
	}
	return out
}

// sampleFor is how long the uplinks are watched for packets that the guard catches.
const sampleFor = 1500 * time.Millisecond

// guard says which packets the guard catches. While its counters are zero no uplink is watched.
func (x *examination) guard(ctx context.Context, rep Report) []Finding {
	var caught uint64
	for _, c := range rep.Firewall.Clear {
		caught += c.Packets
	}
	switch {
	case rep.Firewall.Guard == "off":
		return []Finding{{What: "guard", State: Warn, Detail: "switched off: overlay addresses may leave in clear", Remedy: "start loden run with --guard enforce"}}
	case caught == 0:
		return []Finding{{What: "guard", State: Good, Detail: rep.Firewall.Guard + ", no packet was caught"}}
	}
	f := Finding{What: "guard", State: Warn, Detail: fmt.Sprintf("%d packets with overlay addresses were caught outside of the tunnel", caught),
		Remedy: "mend the route of their sender; for hosts that are to reach pods without the tunnel, or pods that are to reach them without masquerade, see --masq-exclude and --guard in docs/firewall.md"}
	seen, err := x.sniff(ctx)
	switch {
	case err != nil:
		f.Detail += "; which packets is not known: " + err.Error()
	case len(seen) == 0:
		f.Detail += fmt.Sprintf("; none in the last %v", sampleFor)
	default:
		f.State = Bad
		f.Detail += "; now: " + strings.Join(seen, ", ")
	}
	return []Finding{f}
}

// sniff watches the exits for a moment, sends no packet, and returns source and destination of
// the overlay packets in clear.
func (x *examination) sniff(ctx context.Context) ([]string, error) {
	o := sampleOf(x.host.state, x.network.Or(config.Network{}))
	if rep, ok := x.report.Get(); ok && o.Filter.Networks.IsZero() {
		o.Filter.Networks = rep.Networks
	}
	ctx, cancel := context.WithTimeout(ctx, sampleFor)
	defer cancel()
	packets := make(chan string, 64)
	var g errgroup.Group
	for _, name := range o.Interfaces {
		s, err := wire.Open(name, o.Filter)
		if err != nil {
			return nil, errors.Join(err, g.Wait())
		}
		g.Go(func() error {
			err := s.Run(ctx, func(p wire.Packet) {
				select {
				case packets <- describe(p):
				default: // the finding needs few examples
				}
			})
			return errors.Join(err, s.Close())
		})
	}
	err := g.Wait()
	close(packets)
	var out []string
	for text := range packets {
		if !slices.Contains(out, text) && len(out) < 4 {
			out = append(out, text)
		}
	}
	return out, err
}

// describe prints a packet for a finding.
func describe(p wire.Packet) string {
	direction := "arriving on"
	if p.Outgoing {
		direction = "leaving by"
	}
	return fmt.Sprintf("%s → %s %s %s", p.Src, p.Dst, direction, p.Interface)
}

// views compares this node's clock and endpoints with the views of its peers. A peer that gives
// no answer adds no finding: its path is judged elsewhere.
func (x *examination) views(ctx context.Context, rep Report) []Finding {
	all, err := Views(ctx, x.host.settings.RunDir)
	if err != nil {
		return []Finding{{What: "clock", State: Unknown, Detail: "the peers cannot be asked: " + oneLine(err.Error())}}
	}
	own := map[string]bool{}
	for _, e := range rep.Endpoints.All() {
		own[e.String()] = true
	}
	var out []Finding
	answered := 0
	for _, v := range all {
		if v.Error == "" {
			answered++
			out = append(out, judgeView(v, own)...)
		}
	}
	if len(out) > 0 {
		return collapse(out)
	}
	if answered == 0 {
		return []Finding{{What: "clock", State: Unknown, Detail: fmt.Sprintf("none of %d peers told its clock", len(all))}}
	}
	return []Finding{{What: "clock", State: Good, Detail: fmt.Sprintf("agrees with %d of %d peers, which hear this node at the announced endpoint", answered, len(all))}}
}
