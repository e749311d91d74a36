package main

import (
	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/node"
)

// completeNodes offers the names of the nodes, as the daemon of this node knows them, for the
// first n arguments. Without a daemon it offers no name.
func completeNodes(flags *config.Node, n int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		rep, err := node.Ask(cmd.Context(), flags.RunDir)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := []string{rep.Node}
		for _, p := range rep.Peers {
			if p.Node != "" {
				names = append(names, p.Node)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
