package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/loden-net/loden/config"
)

// manCommand writes the manual pages. It is for `make man` and `make install`.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			for name, page := range manPages(cmd.Root()) {
				if err := config.WriteFile(filepath.Join(args[0], name), page, 0o644, 0o755); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// manPages returns a page of section 8 (administration) for each command, by the name of its
// file.
func manPages(root *cobra.Command) map[string][]byte {
	root.InitDefaultCompletionCmd() // which cobra otherwise adds only when it runs
	out := map[string][]byte{}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return
		}
		out[manName(c)+".8"] = manPage(c)
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(root)
	return out
}

// manName returns the name of a command's page: loden-lease-list.
func manName(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "-") }

// manPage returns a page in the macros of man(7).
func manPage(c *cobra.Command) []byte {
	c.InitDefaultHelpFlag()
	var b bytes.Buffer
	fmt.Fprintf(&b, ".TH %s 8 \"\" \"loden %s\" \"Loden\"\n", strings.ToUpper(roff(manName(c))), roff(c.Root().Version))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", roff(manName(c)), roff(strings.TrimSuffix(c.Short, ".")))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n", roff(c.UseLine()))
	if c.Long != "" {
		b.WriteString(".SH DESCRIPTION\n" + paragraphs(c.Long))
	}
	if c.Example != "" {
		b.WriteString(".SH EXAMPLES\n.nf\n" + lines(c.Example) + ".fi\n")
	}
	manFlags(&b, "OPTIONS", c.NonInheritedFlags())
	manFlags(&b, "OPTIONS OF ALL COMMANDS", c.InheritedFlags())
	b.WriteString(".SH SEE ALSO\n")
	var also []string
	if c.HasParent() {
		also = append(also, roff(manName(c.Parent()))+"(8)")
	}
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" && sub.Name() != "completion" {
			also = append(also, roff(manName(sub))+"(8)")
		}
	}
	slices.Sort(also)
	b.WriteString(".BR " + strings.Join(also, ",\n.BR ") + "\n")
	return b.Bytes()
}

// manFlags writes a section with the flags of a set.
func manFlags(b *bytes.Buffer, title string, fs *pflag.FlagSet) {
	header := ".SH " + title + "\n"
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		b.WriteString(header)
		header = ""
		fmt.Fprintf(b, ".TP\n.B %s\n%s", roff("--"+f.Name), paragraphs(f.Usage))
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.Name != "node-name" {
			fmt.Fprintf(b, "Default: %s.\n", roff(f.DefValue))
		}
		if f.Name != "help" && f.Name != "version" {
			fmt.Fprintf(b, "Variable: %s.\n", roff(config.EnvName(f.Name)))
		}
	})
}

// roff escapes text for the formatter.
func roff(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`).Replace(text)
}

// paragraphs escapes text whose paragraphs are separated by empty lines.
func paragraphs(text string) string { return strings.ReplaceAll(lines(text), "\n\n", "\n.PP\n") }

// lines escapes lines, so that none of them is taken for a request of the formatter.
func lines(text string) string {
	var out strings.Builder
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = roff(strings.TrimSuffix(line, "\n"))
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		out.WriteString(line + "\n")
	}
	return out.String()
}
