package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/subnet"
)

// cache stands between the store and the reconciler: it holds back sudden mass removals,
// and keeps on disk what a node needs to start while etcd is away.
type cache struct {
	stateDir   string
	reconciler *network.Reconciler
	log        zerolog.Logger
	changed    chan struct{} // holds one wake-up of run

	mu       sync.Mutex // guards what follows
	hold     subnet.RemovalHold
	newest   opt.Option[subnet.Snapshot] // from the store, or from disk until there is one
	at       time.Time                   // when newest was true
	fromDisk bool                        // newest is an earlier run's
	document []byte                      // the network document, as in the store
	written  []byte                      // what the file holds, its time aside
}

func newCache(node *config.Node, r *network.Reconciler, log zerolog.Logger) *cache {
	return &cache{
		stateDir: node.StateDir, reconciler: r, log: log,
		changed: make(chan struct{}, 1), hold: subnet.NewRemovalHold(node.RemovalHold, nil),
	}
}

// start takes over what an earlier run left on disk, if it is of this node. The reconciler
// then works from it until the store answers.
func (c *cache) start(name string, key wgtypes.Key) {
	saved, n, err := loadSaved(c.stateDir, name, key)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		c.log.Warn().Err(err).Msg("leases of an earlier run not used")
		return
	}
	c.mu.Lock()
	c.hold = subnet.NewRemovalHold(c.hold.Hold, saved.Snapshot.Leases)
	c.newest, c.at, c.fromDisk, c.document = opt.Some(saved.Snapshot), saved.At, true, saved.Document
	c.mu.Unlock()
	c.log.Info().Time("taken", saved.At).Int("leases", len(saved.Snapshot.Leases)).Msg("starting from the leases on disk")
	c.reconciler.Update(func(in *network.Inputs) { in.Network, in.Lease = n, opt.Some(saved.Self) })
	c.reconciler.Offer(saved.Snapshot)
}

// savedPath returns the file of the leases on disk.
func savedPath(stateDir string) string { return filepath.Join(stateDir, "leases.json") }

// loadSaved reads the leases on disk and checks them as anything from outside. They must be
// of the node with this name and key.
func loadSaved(stateDir, name string, key wgtypes.Key) (subnet.Saved, config.Network, error) {
	data, err := os.ReadFile(savedPath(stateDir))
	if err != nil {
		return subnet.Saved{}, config.Network{}, err
	}
	saved, err := subnet.DecodeSaved(data)
	if err != nil {
		return saved, config.Network{}, fmt.Errorf("%s: %w", savedPath(stateDir), err)
	}
	if saved.Self.Node != name || saved.Self.Key != key {
		return saved, config.Network{}, fmt.Errorf("%s is of node %q, or of another key", savedPath(stateDir), saved.Self.Node)
	}
	n, err := config.ParseNetwork(saved.Document)
	if err != nil {
		return saved, n, fmt.Errorf("%s: %w", savedPath(stateDir), err)
	}
	return saved, n, nil
}

// offer takes a snapshot from the store.
func (c *cache) offer(s subnet.Snapshot) {
	c.mu.Lock()
	c.newest, c.at, c.fromDisk = opt.Some(s), time.Now(), false
	c.mu.Unlock()
	c.settle()
	wake(c.changed)
}

// setDocument takes the network document from the store.
func (c *cache) setDocument(data []byte) {
	c.mu.Lock()
	c.document = data
	c.mu.Unlock()
	wake(c.changed)
}

// confirm lets a held mass removal go, as an operator's word.
func (c *cache) confirm() {
	c.mu.Lock()
	held, _ := c.hold.Held()
	c.hold = c.hold.Confirm()
	c.mu.Unlock()
	c.log.Warn().Int("leases", len(held)).Msg("held removals confirmed")
	c.settle()
}

// settle passes the newest snapshot through the hold to the reconciler, and returns how
// long until time alone can change the result; 0 for never.
func (c *cache) settle() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.newest.Get()
	if !ok || c.fromDisk {
		return 0
	}
	before, _ := c.hold.Held()
	var out subnet.Snapshot
	c.hold, out = c.hold.Next(time.Now(), s)
	held, until := c.hold.Held()
	if len(held) > len(before) {
		c.log.Warn().Int("leases", len(held)).Time("until", until).
			Msg("many leases vanished at once: their peers are kept for now; `loden lease confirm` lets them go")
	}
	c.reconciler.Offer(out)
	if until.IsZero() {
		return 0
	}
	return max(time.Until(until), time.Millisecond)
}

// held returns the nodes, or key forms, of the leases that are held back.
func (c *cache) held() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	leases, _ := c.hold.Held()
	var out []string
	for _, l := range leases {
		if l.Node != "" {
			out = append(out, l.Node)
		} else {
			out = append(out, subnet.FormatKey(l.Subnets))
		}
	}
	return out
}

// age returns when the newest snapshot was true, its problems, and whether it is from disk.
func (c *cache) age() (at time.Time, problems []subnet.Problem, fromDisk bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at, c.newest.Or(subnet.Snapshot{}).Problems, c.fromDisk
}

// quietTime is the least time between two writes of the file: a cluster that starts whole
// costs a few writes, not one a node.
const quietTime = time.Second

// run keeps the file up to date and lets held leases go in time, until ctx ends; then it
// returns nil.
func (c *cache) run(ctx context.Context) error {
	for {
		var expiry <-chan time.Time
		if d := c.settle(); d > 0 {
			expiry = time.After(d)
		}
		if err := c.save(); err != nil {
			c.log.Error().Err(err).Msg("leases not kept on disk")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(quietTime):
		}
		select {
		case <-ctx.Done():
			if err := c.save(); err != nil {
				c.log.Error().Err(err).Msg("leases not kept on disk")
			}
			return nil
		case <-c.changed:
		case <-expiry:
		}
	}
}

// save writes the file when what it says has changed.
func (c *cache) save() error {
	in := c.reconciler.Inputs()
	c.mu.Lock()
	defer c.mu.Unlock()
	s, known := c.newest.Get()
	own, held := in.Lease.Get()
	if !known || !held || c.fromDisk || len(c.document) == 0 {
		return nil
	}
	saved := subnet.Saved{Document: c.document, Self: own, Snapshot: s}
	saved.Snapshot.Revision = 0
	content := saved.Encode()
	if bytes.Equal(content, c.written) {
		return nil
	}
	saved.At, saved.Snapshot.Revision = c.at, s.Revision
	if err := config.WriteFile(savedPath(c.stateDir), saved.Encode(), 0o600, 0o700); err != nil {
		return err
	}
	c.written = content
	return nil
}
