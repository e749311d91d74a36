// Command loden-lab runs a whole Loden cluster on one machine, inside namespaces that end
// with it: an etcd, nodes with the real daemon, pods attached by the real CNI plugin. It
// shows which pods reach each other, and proves on the wire that their traffic is encrypted. The programs
// that it runs, etcd among them, stand in the directory of loden-lab itself.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "loden-lab:", err)
		os.Exit(1)
	}
}

// command returns the command line.
func command() *cobra.Command {
	var o options
	root := &cobra.Command{
		Use:           "loden-lab",
		Short:         "A whole Loden cluster on this machine, for as long as you look at it",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	o.flags(root.Flags())
	root.AddCommand(execCommand(), insideCommand())
	return root
}
