package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/network/trace"
	"github.com/loden-net/loden/network/wire"
	"github.com/loden-net/loden/subnet"
)

// Finding is the result of a check.
type Finding = trace.Finding

// State is the verdict of a finding.
type State = trace.State

// The states of a finding.
const (
	Good    = trace.Good
	Warn    = trace.Warn    // Run works, but perhaps not as the operator expects
	Bad     = trace.Bad     // Run would not work, or does not
	Unknown = trace.Unknown // the question has no answer here
)

// CheckOptions are the scope and the limits of Check.
type CheckOptions struct {
	Wire  bool          // look at the uplinks for overlay addresses in clear, which sends a few empty packets
	Limit time.Duration // of each finding; 0 means 5 s
}

// findingLimit is the default of CheckOptions.Limit.
const findingLimit = 5 * time.Second

// Check looks for the causes that would keep this host from being a node, and makes no
// change. Each finding has its own time limit, and a failure does not hide another.
func Check(ctx context.Context, s Settings, o CheckOptions) []Finding {
	return realEnvironment().check(ctx, s, o)
}

func (e environment) check(ctx context.Context, s Settings, o CheckOptions) []Finding {
	c := e.newCheck(s, o)
	defer c.host.close()
	c.run(ctx, o)
	return c.findings
}

// newCheck returns a check without findings. The caller closes its host.
func (e environment) newCheck(s Settings, o CheckOptions) *check {
	if o.Limit <= 0 {
		o.Limit = findingLimit
	}
	return &check{environment: e, host: host{settings: s, log: s.Log, kernel: e.kernel(s)}, limit: o.Limit}
}

// run makes the findings about this host and the store.
func (c *check) run(ctx context.Context, o CheckOptions) {
	s := c.host.settings
	find(ctx, c, "privilege", checkPrivilege)
	c.host.state, _ = find(ctx, c, "uplink", c.uplinks)
	c.host.device, c.working = find(ctx, c, "wireguard", c.engine)
	if c.working {
		c.offloads(ctx)
	}
	c.host.key, _ = find(ctx, c, "private key", c.privateKey)
	find(ctx, c, "directories", c.directories)
	c.network = c.store(ctx)
	c.addresses = storeAddresses(ctx, s.Etcd)
	c.host.firewall, _ = find(ctx, c, "firewall", c.firewall)
	if n, ok := c.network.Get(); ok {
		c.mtu(n)
		c.judge(n)
		c.overlay(n)
		if c.working && !c.host.state.Uplinks.IsZero() {
			find(ctx, c, "port", func(ctx context.Context) (none, string, error) { return c.port(ctx, n) })
		}
		if o.Wire {
			c.wire(ctx, n)
		}
	}
}

// check collects the findings of a host.
type check struct {
	environment environment
	host        host
	limit       time.Duration
	network     opt.Option[config.Network]
	addresses   map[string]netip.Addr // of the store
	working     bool                  // the device answers
	findings    []Finding
}

// add adds a finding: the detail, or the error as a failure.
func (c *check) add(what, detail string, err error) {
	if err != nil {
		c.findings = append(c.findings, Finding{What: what, State: Bad, Detail: oneLine(err.Error())})
		return
	}
	c.findings = append(c.findings, Finding{What: what, State: Good, Detail: detail})
}

// none is the value of a finding without a value.
type none struct{}

// find adds the finding of fn, and returns its value and whether the finding is good. fn
// returns the detail beside the value. A function that does not return within the limit is a
// failure too, and does not hold up the next finding.
func find[T any](ctx context.Context, c *check, what string, fn func(context.Context) (T, string, error)) (T, bool) {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	type result struct {
		value  T
		detail string
		err    error
	}
	done := make(chan result, 1) // so that a late function does not wait for a reader
	go func() {
		value, detail, err := fn(ctx)
		done <- result{value, detail, err}
	}()
	select {
	case r := <-done:
		c.add(what, r.detail, r.err)
		return r.value, r.err == nil
	case <-time.After(c.limit + graceTime):
		var zero T
		c.add(what, "", fmt.Errorf("no answer within %v: see --timeout", c.limit))
		return zero, false
	}
}

// graceTime is how long a function may take to return after its context has ended.
const graceTime = 500 * time.Millisecond

func checkPrivilege(context.Context) (none, string, error) {
	return privilege(os.Geteuid(), capable)
}

// privilege judges a user and its capabilities.
func privilege(euid int, capable func(bit uint) bool) (none, string, error) {
	if euid != 0 {
		return none{}, "", errors.New("not root: use sudo; in a container run as root with CAP_NET_ADMIN and CAP_NET_RAW")
	}
	var missing []string
	for _, needed := range []struct {
		name string
		bit  uint
	}{{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN}, {"CAP_NET_RAW", unix.CAP_NET_RAW}} {
		if !capable(needed.bit) {
			missing = append(missing, needed.name)
		}
	}
	if len(missing) > 0 {
		return none{}, "", fmt.Errorf("root without %s: add it to the container's or the unit's capabilities", strings.Join(missing, " and "))
	}
	return none{}, "root with CAP_NET_ADMIN and CAP_NET_RAW", nil
}

// capable reports whether a capability is in this process's effective set. An unreadable set
// counts as full: the checks that need a capability fail by themselves then.
func capable(bit uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return true
	}
	return data[bit/32].Effective&(1<<(bit%32)) != 0
}

func (c *check) uplinks(context.Context) (network.HostState, string, error) {
	state, err := c.host.kernel.Observe(network.Inputs{})
	var uplinks []string
	for f, u := range state.Uplinks.All() {
		uplinks = append(uplinks, fmt.Sprintf("%s %s on %s (MTU %d)", f, u.Public, u.Name, u.MTU))
	}
	return state, strings.Join(uplinks, ", "), err
}

func (c *check) engine(ctx context.Context) (*backend.Device, string, error) {
	d, err := c.environment.device(c.host.settings)
	if err != nil {
		return nil, "", err
	}
	return d, fmt.Sprintf("%s: %s", d.Kind(), d.Reason()), d.Check(ctx)
}

// offloads adds a finding when a running engine works without one of its offloads: packets
// pass, and each costs more.
func (c *check) offloads(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.limit)
	defer cancel()
	status, err := c.host.device.Status(ctx)
	if err != nil || len(status.Offloads) == 0 {
		return // no engine runs, or its kind has no offloads
	}
	f := Finding{What: "offloads", State: Good, Detail: "all in use"}
	var off []string
	for _, name := range slices.Sorted(maps.Keys(status.Offloads)) {
		switch status.Offloads[name] {
		case "off":
			off = append(off, name+" is off by --engine-no-offload")
		case "refused":
			f.State = Warn
			off = append(off, name+" is refused by the kernel, so that throughput is lower: a newer kernel may take it")
		}
	}
	if len(off) > 0 {
		f.Detail = strings.Join(off, "; ")
	}
	c.findings = append(c.findings, f)
}

func (c *check) privateKey(context.Context) (backend.PrivateKey, string, error) {
	key, exists, err := readKey(c.host.settings.StateDir)
	if !exists {
		return key, "there is no key yet; loden run makes " + backend.KeyPath(c.host.settings.StateDir), err
	}
	return key, "public half " + key.Public().String(), err
}

// store asks etcd for the network document, and returns it.
func (c *check) store(ctx context.Context) opt.Option[config.Network] {
	type answer struct {
		network config.Network
		leases  subnet.Leases
		err     error // of the document; etcd answered
	}
	if !c.storeNames(ctx) {
		return opt.None[config.Network]()
	}
	a, ok := find(ctx, c, "etcd", func(ctx context.Context) (answer, string, error) {
		st, err := c.environment.store(ctx, c.host.settings)
		if err != nil {
			return answer{}, "", err
		}
		defer st.Close()
		n, err := st.Network(ctx)
		if !st.Status().Connected {
			return answer{}, "", err
		}
		snapshot, _ := st.Snapshot(ctx) // without leases their names are not compared
		return answer{n, snapshot.Leases, err}, "answers", nil
	})
	if !ok {
		return opt.None[config.Network]()
	}
	c.nodeName(a.leases)
	c.add("network document", describeNetwork(a.network), a.err)
	if a.err != nil {
		return opt.None[config.Network]()
	}
	return opt.Some(a.network)
}

// describeNetwork prints a network document in a line.
func describeNetwork(n config.Network) string {
	var parts []string
	for _, r := range n.Ranges.All() {
		parts = append(parts, fmt.Sprintf("%s in subnets of /%d", r.Network, r.SubnetLen))
	}
	text := fmt.Sprintf("%s; UDP %d", strings.Join(parts, ", "), n.Backend.ListenPort)
	if n.Backend.PresharedKey.Present() {
		text += ", with a preshared key"
	}
	return text + " (`loden network get` prints it whole)"
}

// firewall opens the driver that Run would choose, which depends on the network document,
// and asks whether it can make the rules.
func (c *check) firewall(ctx context.Context) (*firewall.Firewall, string, error) {
	f, err := c.environment.firewall(ctx, c.host.settings, preferNFTables(c.network))
	if err != nil {
		return nil, "", err
	}
	want := firewall.Config{}
	if n, ok := c.network.Get(); ok {
		state, _ := network.Preflight(c.host.inputs(n))
		want = state.Firewall
	}
	if _, err := f.Changes(ctx, want); err != nil {
		return f, "", err
	}
	problems, err := f.Problems(ctx, want)
	errs := []error{err}
	for _, p := range problems {
		errs = append(errs, fmt.Errorf("%s: %s", p.Object, p.Reason))
	}
	return f, f.Name() + ": " + f.Reason(), errors.Join(errs...)
}

// mtu checks the tunnel's MTU.
func (c *check) mtu(n config.Network) {
	c.add("MTU", fmt.Sprintf("%d bytes in the tunnel", network.MTU(c.host.inputs(n))), nil)
}

// judge adds the Problems that Run would have with the document on this host.
func (c *check) judge(n config.Network) {
	last := network.Inputs{Network: n, Lease: opt.Some(lastLease(c.host.settings))}
	if state, err := c.host.kernel.Observe(last); err == nil { // else the finding about the uplinks says why
		c.host.state = state
	}
	_, problems := network.Preflight(c.host.inputs(n))
	for _, p := range problems {
		c.add("overlay", "", fmt.Errorf("%s: %s", p.Object, p.Reason))
	}
}

// overlay says when an uplink's address lies in the overlay. The node works then, as far as
// the routes of the LAN are more specific than the overlay's.
func (c *check) overlay(n config.Network) {
	for _, p := range network.OutsideProblems(c.host.inputs(n), c.addresses) {
		c.add("overlay", "", fmt.Errorf("%s: %s", p.Object, p.Reason))
	}
	for f, u := range c.host.state.Uplinks.All() {
		if r, ok := n.Ranges.Of(f).Get(); ok && r.Network.Contains(u.Address) {
			c.add("overlay", fmt.Sprintf("the uplink's address %s lies in the overlay %s; hosts on the link are reached directly, since their route is more specific", u.Address, r.Network), nil)
		}
	}
}

// port asks whether the interface can have its UDP port.
func (c *check) port(ctx context.Context, n config.Network) (none, string, error) {
	_, err := c.host.deviceChanges(ctx, n)
	return none{}, fmt.Sprintf("UDP %d is free, or this node's already", network.Port(c.host.inputs(n))), err
}

// wire samples the uplinks once.
func (c *check) wire(ctx context.Context, n config.Network) {
	sample := sampleOf(c.host.state, n)
	result, err := wire.Check(ctx, sample)
	if err != nil {
		c.add("wire", "", err)
		return
	}
	c.findings = append(c.findings, judgeSample(result, sample))
}

// judgeSample returns the finding of a sample of the uplinks. A sample without all its
// canaries is no proof that there is no packet in clear.
func judgeSample(result wire.Result, o wire.Options) Finding {
	canaries := fmt.Sprintf("%d of %d canaries seen on %s in %v", result.CanariesSeen, result.CanariesSent, strings.Join(o.Interfaces, " "), o.For)
	switch {
	case result.Clear > 0:
		return Finding{What: "wire", State: Bad, Detail: fmt.Sprintf("%d packets with overlay addresses in clear, such as %v: read the guard's line in `loden status`", result.Clear, result.Samples)}
	case !result.Encrypted():
		return Finding{What: "wire", State: Warn, Detail: canaries + ", so an empty result is no proof: try again on a quieter link"}
	}
	return Finding{What: "wire", State: Good, Detail: "no packet in clear; " + canaries}
}

// directories checks that Run can write its files.
func (c *check) directories(context.Context) (none, string, error) {
	dirs := []string{c.host.settings.StateDir, c.host.settings.RunDir}
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, writable(dir))
	}
	return none{}, strings.Join(dirs, " and ") + " can be written", errors.Join(errs...)
}

// writable reports why no file can be made in dir. For a directory that does not exist yet
// the nearest parent counts.
func writable(dir string) error {
	for {
		err := unix.Access(dir, unix.W_OK|unix.X_OK)
		parent := filepath.Dir(dir)
		if errors.Is(err, fs.ErrNotExist) && parent != dir {
			dir = parent
			continue
		}
		if err != nil {
			return fmt.Errorf("%s cannot be written: %w: mount it writable, or give --state-dir and --run-dir", dir, err)
		}
		return nil
	}
}
