package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// strict makes bad usage of cmd and of every command below it an error of a single line, with
// exit status 2 and the remedy: cobra's own messages have several lines and exit status 1.
func strict(cmd *cobra.Command) {
	if cmd.HasSubCommands() {
		cmd.Args, cmd.RunE = cobra.ArbitraryArgs, unknownCommand
	} else if cmd.Args == nil {
		cmd.Args = cobra.NoArgs
	}
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) == nil {
			return nil
		}
		return usageError(fmt.Errorf("%s: got %s: write `%s`", cmd.Name(), counted(args), strings.TrimSuffix(cmd.UseLine(), " [flags]")))
	}
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

// counted names arguments for a message.
func counted(args []string) string {
	switch len(args) {
	case 0:
		return "no argument"
	case 1:
		return fmt.Sprintf("the argument %q", args[0])
	}
	return fmt.Sprintf("%d arguments (%s)", len(args), strings.Join(args, " "))
}

// unknownCommand runs a command that only groups others: without arguments it prints the
// help, and an argument that names no command is bad usage.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	if cmd.SuggestionsMinimumDistance <= 0 {
		cmd.SuggestionsMinimumDistance = 2 // letters; cobra's own default, which it sets too late for this call
	}
	remedy := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		remedy = fmt.Sprintf(": did you mean `%s %s`?", cmd.CommandPath(), strings.Join(near, "` or `"+cmd.CommandPath()+" "))
	}
	return usageError(fmt.Errorf("unknown command %q%s (see %s --help)", args[0], remedy, cmd.CommandPath()))
}

// completeChoices offers the choices of a flag to the shell, where cmd has the flag.
func completeChoices(cmd *cobra.Command) {
	for flag, choices := range map[string][]string{
		"engine": {"auto", "kernel", "wireguard-go", "loden"}, "firewall": {"auto", "iptables", "nftables"},
		"guard": {"enforce", "warn", "off"}, "ipv6-masq": {"auto", "always", "never"},
		"log-level": {"debug", "info", "warn", "error"}, "log-format": {"auto", "text", "json"},
	} {
		if cmd.Name() == "engine" && flag == "engine" {
			choices = slices.DeleteFunc(choices, func(c string) bool { return c == "auto" || c == "kernel" })
		}
		if cmd.LocalFlags().Lookup(flag) != nil {
			_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)) // the flag exists, and has no other
		}
	}
	for _, sub := range cmd.Commands() {
		completeChoices(sub)
	}
}
