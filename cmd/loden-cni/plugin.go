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
	"time"

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
	slacken()
	ended := start(file, i.environ(), streams)
	stdout, outErr := said(streams[1])
	stderr, errErr := said(streams[2])
	if err := errors.Join(outErr, errErr); err != nil {
		return nil, err
	}
	if ended != nil {
		return nil, i.refusal(ended, stdout, string(stderr))
	}
	return stdout, nil
}

// start starts a program with three streams and waits for its end. Package os/exec does the
// same, and before its first process it starts one more to try what the kernel can do.
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

// environ returns the plugin's environment: this process's, but for what i.Env has.
func (i invocation) environ() []string {
	same := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.ContainsFunc(i.Env, func(other string) bool { return strings.HasPrefix(other, name+"=") })
	})
	return append(same, i.Env...)
}

// slack is how late a timer of a plugin may be.
const slack = 2 * time.Millisecond

// slacken gives slack to the program that the calling goroutine starts or becomes next, and
// to those it starts: prctl(2), PR_SET_TIMERSLACK. Plugins are written in Go, whose monitor
// sleeps 20 µs between two looks at a program that is in and out of the kernel, as these
// are. In a bridge and a host-local that is hundreds of interrupts and changes of threads
// (docs/cni.md, "Cost").
//
// Slack is a thread's. Should Go move the goroutine to another one before it gets there, or
// a filter of system calls refuse, the plugin is slower, and that is all.
func slacken() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack.Nanoseconds()), 0, 0, 0) }

// giveWay doubles the slice of the processor that the program gets which the calling
// goroutine becomes next: sched_setattr(2), from Linux 6.12 on. Who has a shorter one may
// interrupt it then, and the bridge waits for such a one without knowing: a worker of the
// kernel, woken by the bridge's own last call, makes the pod's IPv6 address usable. A bridge
// that looks before it has run sleeps 50 ms. What was said of slack holds here as well.
func giveWay() {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil || attr.Policy != unix.SCHED_NORMAL {
		return // an operator's choice, which has no slices
	}
	attr.Runtime *= 2
	_ = unix.SchedSetAttr(0, attr, 0)
}

// memory returns a file in memory. A plugin that reads and writes such files needs nobody
// to feed it and to listen: on a busy machine each of those is a wait for the processor.
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

// said returns what a plugin wrote to f.
func said(f *os.File) ([]byte, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read stream of plugin: %w", err)
	}
	return io.ReadAll(f)
}

// become replaces this process by the plugin: what it prints, and how it ends, the runtime
// sees directly. It saves an ADD the wait for a second process (a millisecond and a half of
// eleven). It returns only if the plugin could not be started.
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
	slacken()
	giveWay()
	return fmt.Errorf("start %s: %w", i.Plugin, unix.Exec(file, []string{file}, i.environ()))
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
