package main

import (
	"os"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
)

func networkCommand(node *config.Node) *cobra.Command {
	cmd := &cobra.Command{Use: "network", Short: "Read, check and write the network document"}
	put := &cobra.Command{Use: "put FILE", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		data, err := os.ReadFile(args[0])
		if err != nil {
			return err
		}
		r, err := openRegistry(cmd.Context(), node, zerolog.Nop())
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = r.PutNetwork(cmd.Context(), data, false)
		return err
	}}
	node.StoreFlags(put.Flags())
	cmd.AddCommand(put)
	return cmd
}
