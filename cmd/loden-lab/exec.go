package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/loden-net/loden/test/sandbox"
)

// settingsFile holds the environment of `exec`, inside the sandbox.
const settingsFile = "/run/loden-lab.env"

// execCommand runs a program on a host of a lab that runs in another terminal.
func execCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "exec HOST -- COMMAND [ARG...]",
		Short: "Run a command on a host of the running lab",
		Example: `  loden-lab exec node1 -- wg show
  loden-lab exec node1-pod1 -- ip addr`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			pid, err := findLab("/proc")
			if err != nil {
				return err
			}
			return enter(pid, args)
		},
	}
}

// findLab returns the process id of this user's lab; a user runs a single lab at a time.
func findLab(proc string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	environs, err := filepath.Glob(proc + "/[0-9]*/environ")
	if err != nil {
		return 0, err
	}
	var found []int
	for _, file := range environs {
		env, err := os.ReadFile(file) // unreadable: a process of another user, or a process that has ended
		exe, err2 := os.Readlink(filepath.Join(filepath.Dir(file), "exe"))
		pid, err3 := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if errors.Join(err, err2, err3) == nil && exe == self && inside(env) {
			found = append(found, pid)
		}
	}
	switch len(found) {
	case 0:
		return 0, errors.New("no lab is running: start one with `loden-lab` in another terminal, and be the same user")
	case 1:
		return found[0], nil
	}
	return 0, fmt.Errorf("%d labs are running: end all but one", len(found))
}

// inside reports whether an environment belongs to a program inside its sandbox.
func inside(environ []byte) bool {
	return slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(v []byte) bool {
		return string(v) == sandbox.InsideEnv
	})
}

// enter replaces this process by a command on a host of the lab, in the lab's namespaces.
func enter(pid int, args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return fmt.Errorf("enter lab: %w (apt-get install util-linux)", err)
	}
	line := []string{"nsenter", "--target", strconv.Itoa(pid), "--mount", "--pid"}
	if os.Geteuid() != 0 {
		line = append(line, "--user", "--preserve-credentials")
	}
	line = append(line, "--", self, "inside", "--")
	return syscall.Exec(nsenter, append(line, args...), os.Environ())
}

// insideCommand is the second half of exec, already in the lab's namespaces.
func insideCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inside HOST -- COMMAND [ARG...]", Short: "The second half of exec", Hidden: true,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			host := &sandbox.Host{Name: args[0]}
			if _, err := os.Stat(host.NetNS()); err != nil {
				return fmt.Errorf("no host %q: there are %s", host.Name, strings.Join(hostNames(), ", "))
			}
			settings, err := os.ReadFile(settingsFile)
			if err != nil {
				return err
			}
			run := host.Command(cmd.Context(), args[1], args[2:]...)
			run.Env = append(os.Environ(), strings.Fields(string(settings))...)
			run.Stdin, run.Stdout, run.Stderr = os.Stdin, os.Stdout, os.Stderr
			if err := run.Run(); err != nil {
				return fmt.Errorf("%s on %s: %w", args[1], host.Name, err)
			}
			return nil
		},
	}
}

// hostNames lists the hosts of the lab.
func hostNames() []string {
	paths, _ := filepath.Glob((&sandbox.Host{Name: "*"}).NetNS()) // the pattern is well formed
	for i, p := range paths {
		paths[i] = filepath.Base(p)
	}
	return paths
}
