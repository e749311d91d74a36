package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"
)

// invocation is a single start of another plugin, which inherits the runtime's variables of this
// process unchanged.
//
// The CNI library's package invoke does the same work, but it links a tracing library and with
// it net/http: 2 MB and a millisecond at each start.
type invocation struct {
	Plugin string   // its type
	Path   string   // directories to search, as in CNI_PATH
	Config []byte   // its standard input
	Env    []string // variables that differ from this process's
}

// run starts the plugin, waits for its end and returns its standard output. When the plugin
// printed a CNI error, the error is a *types.Error with the plugin's own code.
func (i invocation) run() ([]byte, error) {
	file, err := i.find()
	if err != nil {
		return nil, err
	}
	var streams [3]*os.File
	for n := range streams {
		if streams[n], err = memory(); err != nil {
			return nil, err
		}
		defer streams[n].Close()
	}
	if err := fill(streams[0], i.Config); err != nil {
		return nil, err
	}
	ended := start(file, i.environ(), streams)
	stdout, outErr := readStream(streams[1])
	stderr, errErr := readStream(streams[2])
	if err := errors.Join(outErr, errErr); err != nil {
		return nil, err
	}
	if ended != nil {
		return nil, i.refusal(ended, stdout, string(stderr))
	}
	return stdout, nil
}

// start starts a program with three streams and waits for its end. Package os/exec does the
// same, but it starts another process before the first, to try the kernel's features.
func start(file string, env []string, streams [3]*os.File) error {
	attr := syscall.ProcAttr{Env: env}
	for _, s := range streams {
		attr.Files = append(attr.Files, s.Fd())
	}
	pid, err := syscall.ForkExec(file, []string{file}, &attr)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	var ended syscall.WaitStatus
	for err = syscall.EINTR; err == syscall.EINTR; {
		_, err = syscall.Wait4(pid, &ended, 0, nil)
	}
	switch {
	case err != nil:
		return fmt.Errorf("wait: %w", err)
	case ended.Signaled():
		return fmt.Errorf("ended by signal: %v", ended.Signal())
	case ended.ExitStatus() != 0:
		return fmt.Errorf("exit status %d", ended.ExitStatus())
	}
	return nil
}

// environ returns the plugin's environment: the variables of i.Env, and the variables of this
// process with other names.
func (i invocation) environ() []string {
	same := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.ContainsFunc(i.Env, func(other string) bool { return strings.HasPrefix(other, name+"=") })
	})
	return append(same, i.Env...)
}

// memory returns a file in memory. A plugin that reads and writes a file does not wait for
// another process to write and read its pipes: on a busy machine each wait costs time.
func memory() (*os.File, error) {
	fd, err := unix.MemfdCreate("loden-cni", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make stream of plugin: %w", err)
	}
	return os.NewFile(uintptr(fd), "loden-cni"), nil
}

// fill writes data to f, for a reader that starts at its beginning.
func fill(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("write stream of plugin: %w", err)
	}
	return nil
}

// readStream returns the output that a plugin wrote to f.
func readStream(f *os.File) ([]byte, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read stream of plugin: %w", err)
	}
	return io.ReadAll(f)
}

// become replaces this process by the plugin: the runtime gets the plugin's output and exit
// status directly. An ADD then does not wait for a second process (a millisecond and a half of
// eleven). It returns an error when the plugin could not be started, and else never.
func (i invocation) become() error {
	file, err := i.find()
	if err != nil {
		return err
	}
	stdin, err := memory()
	if err != nil {
		return err
	}
	if err := fill(stdin, i.Config); err != nil {
		return err
	}
	if err := unix.Dup3(int(stdin.Fd()), 0, 0); err != nil {
		return fmt.Errorf("set standard input of %s: %w", i.Plugin, err)
	}
	return fmt.Errorf("start %s: %w", i.Plugin, unix.Exec(file, []string{file}, i.environ()))
}

// find returns the plugin's file.
func (i invocation) find() (string, error) {
	if i.Plugin == "" || strings.ContainsRune(i.Plugin, os.PathSeparator) {
		return "", types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("delegate's type is %q: give the file name of a plugin, without a directory", i.Plugin), "")
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

// refusal makes the error of a plugin that failed: the plugin's name and its message.
func (i invocation) refusal(err error, stdout []byte, stderr string) error {
	var printed types.Error
	if json.Unmarshal(stdout, &printed) == nil && printed.Msg != "" {
		printed.Msg = i.Plugin + ": " + printed.Msg
		return &printed
	}
	return types.NewError(types.ErrInternal, fmt.Sprintf("%s: %v", i.Plugin, err), strings.TrimSpace(stderr+" "+string(stdout)))
}
