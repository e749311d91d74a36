package network

import (
	"context"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/network/firewall"
)

// Options are what a Reconciler works on and with.
type Options struct {
	SubnetFile string
	RunDir     string // holds the kernel settings that were found
	Device     *backend.Device
	Key        backend.PrivateKey
	Firewall   *firewall.Firewall
	Look       func() (Outlook, error) // looks at the machine anew, on every pass
	Self       Self
	Promises   []Part       // what comes after subnet.env: the CNI configuration
	Passed     func(Status) // called after every pass with what it saw; must not block
	Log        zerolog.Logger
}

// New returns a Reconciler that has made no pass yet. It owns nothing that must be closed.
func New(o Options) *Reconciler {
	r := &Reconciler{log: o.Log, look: o.Look, passed: o.Passed, wake: make(chan struct{}, 1), in: Inputs{Self: o.Self}}
	routes := routes{tunnel: o.Self.Interface}
	sysctls := sysctls{before: filepath.Join(o.RunDir, "sysctls-found.json")}
	env := envFile{path: o.SubnetFile}
	// The guard is there before anything is forwarded, and goes last. Settings come before the
	// interface, which changes one by itself; routes need it; subnet.env promises all of it.
	r.parts = append([]Part{
		{Name: "firewall", Changes: func(ctx context.Context, want State) ([]diff.Change, error) {
			return o.Firewall.Changes(ctx, want.Firewall)
		}},
		{Name: "sysctls", Changes: func(ctx context.Context, want State) ([]diff.Change, error) {
			return sysctls.changes(ctx, want.Sysctls)
		}},
		{Name: "device", Changes: func(ctx context.Context, want State) ([]diff.Change, error) {
			return o.Device.Changes(ctx, o.Key, want.Device)
		}},
		{Name: "routes", Changes: func(ctx context.Context, want State) ([]diff.Change, error) {
			return routes.changes(ctx, want.Routes)
		}},
		{Name: "env", Promise: true, Changes: func(ctx context.Context, want State) ([]diff.Change, error) {
			return env.changes(ctx, want.Env)
		}},
	}, o.Promises...)
	return r
}
