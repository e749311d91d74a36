// Loden runs an encrypted, dual-stack pod network on this node, and shows its state.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/network/node"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	os.Exit(execute(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs a command line and returns the exit status: 0, 1 for a failure, 2 for bad
// usage, or the status of an exitError.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	status := statusOf(err)
	if text := oneLine(err.Error()); text != "" {
		fmt.Fprintln(stderr, "loden: "+text)
		if wantsJSON(cmd) {
			_ = printError(stdout, text, status) // the line above has told it
		}
	}
	return status
}

// wantsJSON reports whether a command was called with --json.
func wantsJSON(cmd *cobra.Command) bool {
	f := cmd.Flags().Lookup("json")
	return f != nil && f.Value.String() == "true"
}

// statusOf returns the exit status of an error.
func statusOf(err error) int {
	if exit, ok := errors.AsType[exitError](err); ok {
		return exit.status
	}
	if errors.Is(err, node.ErrNoDaemon) {
		return exitNoDaemon
	}
	return 1
}

// oneLine joins the lines of a joined error, so that a script sees a single line.
func oneLine(s string) string { return strings.Join(strings.Split(strings.TrimSpace(s), "\n"), "; ") }

// exitError ends the program with a status of its own. Without an error inside it prints no
// message, since the command has printed its result.
type exitError struct {
	status int
	err    error
}

func (e exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// usageError marks bad input on the command line.
func usageError(err error) error {
	if err == nil {
		return nil
	}
	return exitError{status: 2, err: err}
}

func rootCommand() *cobra.Command {
	var flags config.Node
	root := &cobra.Command{
		Use:           "loden",
		Short:         "An encrypted, dual-stack pod network for Linux nodes",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return usageError(config.FromEnvironment(cmd.Flags(), os.LookupEnv))
		},
	}
	root.SetVersionTemplate("loden {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath()))
	})
	flags.LogFlags(root.PersistentFlags())
	lease := leaseCommand(&flags)
	lease.AddCommand(confirmCommand(&flags))
	root.AddCommand(
		networkCommand(&flags), lease, runCommand(&flags), planCommand(&flags), statusCommand(&flags), downCommand(&flags), checkCommand(&flags),
		doctorCommand(&flags), whyCommand(&flags),
		engineCommand(&flags), envCommand(), versionCommand(), docsCommand(), manCommand(),
	)
	strict(root)
	completeChoices(root)
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "loden "+version) },
	}
}

// settingsOf returns the settings of the flags, checked, for a command that works on the
// node. Its log goes to w.
func settingsOf(flags *config.Node, w io.Writer) (node.Settings, error) {
	log, err := newLogger(flags, w)
	if err != nil {
		return node.Settings{}, err
	}
	settings, err := flags.Parse()
	if err != nil {
		return node.Settings{}, usageError(err)
	}
	return node.Settings{Settings: settings, Version: version, Log: log}, nil
}

// settingsOfDaemon returns the settings of the flags, and for each flag that neither the
// command line nor the environment gives, the setting of the daemon that has the same run
// directory, whether it runs now or ran last.
func settingsOfDaemon(cmd *cobra.Command, flags *config.Node) (node.Settings, error) {
	if err := fromDaemon(cmd, flags.RunDir); err != nil {
		return node.Settings{}, err
	}
	return settingsOf(flags, cmd.ErrOrStderr())
}

// fromDaemon fills the flags that neither the command line nor the environment gives from the
// settings of the daemon that has the run directory.
func fromDaemon(cmd *cobra.Command, runDir string) error {
	record, err := node.Record(runDir)
	if err != nil || record == nil {
		return err
	}
	if err := config.FromRecord(cmd.Flags(), record); err != nil {
		return fmt.Errorf("%s: %w: give the flags on the command line, or start loden run anew", node.RecordPath(runDir), err)
	}
	return nil
}
