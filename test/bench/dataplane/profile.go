package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// runProfiles runs a test on each loden contender under perf and prints where the time
// of its two engines goes. It is apart from the rounds, which must run undisturbed.
func runProfiles(ctx context.Context, o options, all []contender) error {
	tests, err := parseTests(o.profile)
	if err != nil {
		return err
	}
	dir := o.profileDir
	if dir == "" {
		if dir, err = os.MkdirTemp("/run", "profile"); err != nil { // of the sandbox
			return err
		}
	}
	for _, c := range all {
		for _, t := range tests {
			if c.role != roleLoden || !t.suits(c) {
				continue
			}
			if err := profile(ctx, o, c, t, filepath.Join(dir, c.name+"."+t.name+".perf")); err != nil {
				return fmt.Errorf("profile %s of %s: %w", t.name, c.name, err)
			}
		}
	}
	return nil
}

func profile(ctx context.Context, o options, c contender, t test, file string) error {
	b, err := build(ctx, 0, c)
	if err != nil {
		return err
	}
	defer b.close()
	pids := fmt.Sprintf("%d,%d", b.sides[0].engine.Process.Pid, b.sides[1].engine.Process.Pid)
	perf := exec.CommandContext(ctx, "perf", "record", "-q", "-e", "cpu-clock", "-F", "1999", "-g", "-o", file, "-p", pids)
	perf.Cancel = func() error { return perf.Process.Signal(os.Interrupt) }
	perf.WaitDelay = 10 * time.Second
	perf.Stderr = os.Stderr
	if err := perf.Start(); err != nil {
		return err
	}
	v, err := b.measure(ctx, o, t)
	_ = perf.Process.Signal(os.Interrupt) // it writes its file and ends
	var status *exec.ExitError
	if ended := perf.Wait(); ended != nil && !errors.As(ended, &status) { // by the signal, as told
		err = errors.Join(err, ended)
	}
	if err != nil {
		return err
	}
	fmt.Printf("\nprofile of %s, %s (perf slows it): %v\n", c.name, t.name, v)
	for _, by := range []string{"dso", "dso,symbol"} {
		text, err := exec.CommandContext(ctx, "perf", "report", "-i", file, "--stdio", "--no-children", "-g", "none",
			"--percent-limit", "0.5", "--sort", by).Output()
		if err != nil {
			return fmt.Errorf("perf report: %w", err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimRight(line, " -\n"); line != "" && !strings.HasPrefix(line, "#") {
				fmt.Println(line)
			}
		}
		fmt.Println()
	}
	return nil
}
