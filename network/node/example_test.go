package node_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/node"
)

// A program that embeds a node gives it settings, as valid values, and ends it with a
// context. The data path stays when Run returns. With an engine in userspace the program
// must also answer the command line `PROGRAM engine IFACE` with backend/engine.Run.
func ExampleRun() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	settings := node.Settings{
		Version: "my-distribution 1.0",
		Log:     zerolog.New(os.Stderr),
		Settings: config.Settings{
			Name:        "worker-1",
			Etcd:        config.Etcd{Endpoints: []string{"https://192.0.2.10:2379"}, Prefix: "/coreos.com/network"},
			Interface:   "loden0",
			SubnetFile:  "/run/flannel/subnet.env",
			StateDir:    "/var/lib/loden",
			RunDir:      "/run/loden",
			Engine:      "kernel",
			Firewall:    "auto",
			Rules:       config.Rules{Masq: true, IPv6Masq: "auto", Forward: true, Guard: "enforce"},
			LeaseTTL:    24 * time.Hour,
			RemovalHold: 5 * time.Minute,
			StoreWait:   5 * time.Minute,
			Resync:      30 * time.Second,
		},
	}
	for _, f := range node.Check(ctx, settings, node.CheckOptions{}) {
		if f.State == node.Bad {
			fmt.Fprintf(os.Stderr, "%s: %s\n", f.What, f.Detail)
			return
		}
	}
	if err := node.Run(ctx, settings); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
