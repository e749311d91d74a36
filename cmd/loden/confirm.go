package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
)

// confirmCommand lets a held mass removal go at once, on this node.
func confirmCommand(node *config.Node) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "confirm",
		Short: "Let go, on this node, of the many leases that vanished at once and are held",
		Long: "When more than a fifth of the leases, and more than three, vanish at once, their peers are kept for " +
			"--removal-hold in case it was a mistake. This says that it was none.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			resp, err := request(cmd.Context(), node.RunDir, http.MethodPost, "/removals/confirm")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusNoContent {
				text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // a text for people, whole or not
				return fmt.Errorf("confirm removals: %s: %s", resp.Status, strings.TrimSpace(string(text)))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&node.RunDir, "run-dir", "/run/loden", "directory of the status socket")
	return cmd
}
