package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/subnet"
	"github.com/loden-net/loden/subnet/etcd"
)

func networkCommand(flags *config.Node) *cobra.Command {
	cmd := &cobra.Command{Use: "network", Short: "Read, write and check the network document"}
	cmd.AddCommand(networkGetCommand(flags), networkPutCommand(flags), networkCheckCommand())
	return cmd
}

func networkGetCommand(flags *config.Node) *cobra.Command {
	var s store
	var effective bool
	cmd := &cobra.Command{
		Use: "get", Short: "Print the network document", Args: cobra.NoArgs,
		Long: "Print the network document as it stands in etcd, so that it can be changed and put back; with --effective, " +
			"what it says with every default filled in and a pre-shared key hidden.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.with(cmd, flags, func(ctx context.Context, r *etcd.Registry) error {
				d, err := r.Document(ctx)
				if err != nil {
					return err
				}
				if effective {
					return printJSON(cmd.OutOrStdout(), d.Network)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", d.Data)
				return err
			})
		},
	}
	s.flags(cmd, flags)
	cmd.Flags().BoolVar(&effective, "effective", false, "fill in every default")
	return cmd
}

func networkPutCommand(flags *config.Node) *cobra.Command {
	var s store
	var force bool
	cmd := &cobra.Command{
		Use: "put FILE", Short: "Check a network document and write it to etcd", Args: cobra.ExactArgs(1),
		Long: "Check a network document and write it to etcd ('-' reads standard input). A document under which nodes that " +
			"have a lease would get other subnets is refused, and the leases are shown; --force writes it all the same.",
		RunE: func(cmd *cobra.Command, args []string) error {
			data, _, err := readNetwork(cmd, args[0])
			if err != nil {
				return err
			}
			return s.with(cmd, flags, func(ctx context.Context, r *etcd.Registry) error {
				moves := etcd.RefuseMoves
				if force {
					moves = etcd.AllowMoves
				}
				moved, err := r.PutNetwork(ctx, data, moves)
				printMoved(cmd.ErrOrStderr(), moved)
				return err
			})
		},
	}
	s.flags(cmd, flags)
	cmd.Flags().BoolVar(&force, "force", false, "write it although living leases would move")
	return cmd
}

// printMoved lists the leases that a document does not fit.
func printMoved(w io.Writer, moved []subnet.Lease) {
	for _, l := range moved {
		fmt.Fprintf(w, "would move: %s of node %s\n", join(l.Subnets), nodeName(l))
	}
}

func networkCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check FILE", Short: "Check a network document and print its meaning", Args: cobra.ExactArgs(1),
		Long: "Check a network document without etcd ('-' reads standard input) and print the effective one as JSON, with " +
			"flannel's key names and every default filled in. A pre-shared key is hidden.",
		RunE: func(cmd *cobra.Command, args []string) error {
			_, n, err := readNetwork(cmd, args[0])
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), n)
		},
	}
}

// readNetwork reads a network document from a file, or from standard input for "-".
func readNetwork(cmd *cobra.Command, file string) ([]byte, config.Network, error) {
	var data []byte
	var err error
	if file == "-" {
		data, err = io.ReadAll(cmd.InOrStdin())
	} else {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, config.Network{}, fmt.Errorf("read network document: %w", err)
	}
	n, err := config.ParseNetwork(data)
	if err != nil {
		return nil, n, fmt.Errorf("%s: %w", file, err)
	}
	for _, w := range config.NetworkWarnings(data) {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s: %s\n", file, w)
	}
	return data, n, nil
}
