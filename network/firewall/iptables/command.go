package iptables

import (
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/loden-net/loden/config/opt"
)

// Variant is an implementation of iptables: they keep their rules apart.
type Variant string

// The variants.
const (
	NFT    Variant = "nft"
	Legacy Variant = "legacy"
)

// Command is an iptables command of a family.
type Command struct {
	Family  opt.Family
	Variant Variant
	Name    string // iptables, ip6tables-legacy, ...; empty when no command is installed
}

// Plain returns the name of the command whose variant the host has chosen.
func Plain(f opt.Family) string {
	if f == opt.V6 {
		return "ip6tables"
	}
	return "iptables"
}

// Choose returns the command of a family to use: of the variant that the host's rules are in,
// else of the variant that the host has chosen. It starts no process on a host whose commands
// are links to the programs, as distributions have them.
func Choose(f opt.Family, nft, legacy Fingerprint) Command {
	own := variantOf(Plain(f))
	want := own
	switch {
	case legacy.Used > nft.Used:
		want = Legacy
	case nft.Used > legacy.Used:
		want = NFT
	}
	if special := Plain(f) + "-" + string(want); want != own && found(special) {
		return Command{Family: f, Variant: want, Name: special}
	}
	if own == "" {
		return Command{Family: f, Variant: want}
	}
	return Command{Family: f, Variant: own, Name: Plain(f)}
}

// Of returns the command of a given variant; its Name is empty when no command is installed.
func Of(f opt.Family, v Variant) Command {
	c := Command{Family: f, Variant: v}
	if special := Plain(f) + "-" + string(v); found(special) {
		c.Name = special
	} else if variantOf(Plain(f)) == v {
		c.Name = Plain(f)
	}
	return c
}

func found(name string) bool {
	_, err := exec.LookPath(name)
	return err == nil
}

// variantOf says which variant a command is, or "" when it is not installed.
func variantOf(name string) Variant {
	path, err := exec.LookPath(name)
	if err != nil {
		return ""
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		switch base := filepath.Base(target); {
		case strings.Contains(base, "legacy"):
			return Legacy
		case strings.Contains(base, "nft"):
			return NFT
		}
	}
	out, err := exec.Command(path, "--version").Output()
	if err == nil && strings.Contains(string(out), "nf_tables") {
		return NFT
	}
	return Legacy // before 1.8 there was no other variant
}
