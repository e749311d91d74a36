package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// invocation is one start of another plugin. What it leaves out is as in this process:
// the runtime's own variables reach the delegate unchanged.
//
// The CNI library has the same in its package invoke, which links a tracing library and
// with it net/http: 2 MB and a millisecond at each start.
type invocation struct {
	Plugin string   // its type
	Path   string   // directories to find it in, as CNI_PATH
	Config []byte   // its standard input
	Env    []string // variables that differ from this process's
}

// run starts the plugin, waits for its end and returns what it printed. The error of a
// plugin that says one is a *types.Error with the plugin's own code.
func (i invocation) run() ([]byte, error) {
	file, err := i.find()
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(file)
	cmd.Env = append(os.Environ(), i.Env...) // of two equal names the last one counts
	cmd.Stdin = bytes.NewReader(i.Config)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, i.refusal(err, stdout.Bytes(), stderr.String())
	}
	return stdout.Bytes(), nil
}

// become replaces this process by the plugin: what it prints, and how it ends, the runtime
// sees directly. It saves an ADD the wait for a second process (a millisecond and a half of
// eleven). It returns only if the plugin could not be started.
func (i invocation) become() error {
	file, err := i.find()
	if err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("loden-cni", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make standard input of %s: %w", i.Plugin, err)
	}
	stdin := os.NewFile(uintptr(fd), "loden-cni")
	if _, err := stdin.Write(i.Config); err != nil {
		return fmt.Errorf("write standard input of %s: %w", i.Plugin, err)
	}
	if _, err := stdin.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("write standard input of %s: %w", i.Plugin, err)
	}
	if err := unix.Dup3(fd, 0, 0); err != nil {
		return fmt.Errorf("set standard input of %s: %w", i.Plugin, err)
	}
	return fmt.Errorf("start %s: %w", i.Plugin, unix.Exec(file, []string{file}, append(os.Environ(), i.Env...)))
}

// find returns the plugin's file.
func (i invocation) find() (string, error) {
	if i.Plugin == "" || strings.ContainsRune(i.Plugin, os.PathSeparator) {
		return "", types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("%q is no name of a plugin", i.Plugin), "")
	}
	for _, dir := range filepath.SplitList(i.Path) {
		file := filepath.Join(dir, i.Plugin)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file, nil
		}
	}
	return "", types.NewError(types.ErrInvalidNetworkConfig,
		fmt.Sprintf("plugin %q is not in %s", i.Plugin, i.Path), "install the reference plugins there, or let 'loden run --cni-bin-dir' do it")
}

// refusal makes the error of a plugin that ended badly: what it said, and which one it was.
func (i invocation) refusal(err error, stdout []byte, stderr string) error {
	var said types.Error
	if json.Unmarshal(stdout, &said) == nil && said.Msg != "" {
		said.Msg = i.Plugin + ": " + said.Msg
		return &said
	}
	return types.NewError(types.ErrInternal, fmt.Sprintf("%s: %v", i.Plugin, err), strings.TrimSpace(stderr+" "+string(stdout)))
}
