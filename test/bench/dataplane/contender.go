package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// role is the row or column of a contender in the bars.
type role string

const (
	roleLoden   role = "loden"
	rolePlain   role = "wireguard-go"
	roleForked  role = "tailscale" // Tailscale's fork of wireguard-go, its program
	roleWrapped role = "wrapped wireguard-go"
	roleNebula  role = "nebula"
	roleRaw     role = "raw"
)

// contender is a tunnel under test, or none.
type contender struct {
	name    string
	role    role
	program string
}

// wireGuard reports whether the contender is configured by wg(8).
func (c contender) wireGuard() bool {
	return c.role == roleLoden || c.role == rolePlain || c.role == roleForked || c.role == roleWrapped
}

// command returns how a WireGuard engine is started for an interface.
func (c contender) command(iface string) []string {
	switch c.role {
	case rolePlain, roleForked:
		return []string{c.program, "-f", iface}
	case roleWrapped:
		return []string{c.program, "engine", "--log-level", "warn", "--engine", "wireguard-go", iface}
	}
	return []string{c.program, "engine", "--log-level", "warn", "--engine", "loden", iface}
}

// contenders returns all contenders: peers first, so that ratios are to them.
func contenders(o options) (all []contender, err error) {
	if o.wireguardGo != "" {
		all = append(all, contender{string(rolePlain), rolePlain, o.wireguardGo})
	}
	if o.tailscale != "" {
		all = append(all, contender{string(roleForked), roleForked, o.tailscale})
	}
	lodens, err := lodenContenders(o.loden)
	if err != nil {
		return nil, err
	}
	if o.wrapped && len(lodens) > 0 {
		all = append(all, contender{string(roleWrapped), roleWrapped, lodens[0].program})
	}
	all = append(all, lodens...)
	if o.nebula != "" {
		all = append(all, contender{string(roleNebula), roleNebula, o.nebula})
	}
	if o.raw {
		all = append(all, contender{string(roleRaw), roleRaw, ""})
	}
	names := map[string]bool{}
	for i, c := range all {
		if c.program != "" {
			if all[i].program, err = exec.LookPath(c.program); err == nil {
				all[i].program, err = filepath.Abs(all[i].program)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
		}
		if names[c.name] {
			return nil, fmt.Errorf("two contenders are called %s", c.name)
		}
		names[c.name] = true
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no contender")
	}
	return all, nil
}

// lodenContenders reads the flag -loden: PROGRAM, or several as NAME=PROGRAM,NAME=PROGRAM.
func lodenContenders(text string) (all []contender, err error) {
	for word := range strings.SplitSeq(text, ",") {
		name, program, named := strings.Cut(word, "=")
		switch {
		case named && (name == "" || program == ""):
			return nil, fmt.Errorf("-loden %q: want PROGRAM or NAME=PROGRAM", word)
		case named:
			all = append(all, contender{name, roleLoden, program})
		case word != "":
			all = append(all, contender{string(roleLoden), roleLoden, word})
		}
	}
	return all, nil
}
