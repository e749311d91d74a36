package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/config/wait"
)

// engineProcess starts and ends the userspace engine of a single interface. The engine is no
// child in spirit: it has its own session and log, and outlives this process.
type engineProcess struct {
	iface      string
	runDir     string
	executable string
	noOffload  string
	log        zerolog.Logger

	mu       sync.Mutex
	children []int // guarded by mu: PIDs that this process started and has not reaped
}

const (
	startWithin = 30 * time.Second // a machine may be busy; an idle machine takes 20 ms
	endWithin   = 10 * time.Second // after that an engine is killed
	orderWithin = 2 * time.Second  // an engine takes an order at once
	answerSoon  = time.Second
	pollEvery   = 10 * time.Millisecond
	logMax      = 1 << 20 // bytes; a longer log starts again with the next engine
)

func newEngineProcess(o Options) *engineProcess {
	p := &engineProcess{iface: o.Name, runDir: o.RunDir, executable: o.Executable, noOffload: o.NoOffload, log: o.Log}
	if p.executable == "" {
		p.executable = "/proc/self/exe" // also when the file was replaced by an upgrade
	}
	return p
}

// observe lists the running engine and the files that a dead engine left. It collects the
// processes that ended.
func (p *engineProcess) observe() (owner opt.Option[engine.Owner], files bool, err error) {
	p.reap()
	o, running, err := engine.Running(p.runDir, p.iface)
	if running {
		owner = opt.Some(o)
	}
	for _, path := range p.files() {
		if _, missing := os.Lstat(path); missing == nil {
			files = true
		}
	}
	return owner, files, err
}

// statusSoon is how long an engine may take for its own account: it answers in milliseconds.
const statusSoon = 500 * time.Millisecond

// status asks the engine over its control socket. An engine of an older version has no answer.
func (p *engineProcess) status(ctx context.Context) engine.Status {
	ctx, cancel := context.WithTimeout(ctx, statusSoon)
	defer cancel()
	s, err := engine.ReadStatus(ctx, p.runDir, p.iface)
	if err != nil {
		return engine.Status{}
	}
	return s
}

// possible asks for the driver of TUN devices.
func (p *engineProcess) possible() error { return engine.CheckTUN() }

func (p *engineProcess) logPath() string { return filepath.Join(p.runDir, p.iface+".log") }

// start starts an engine and waits until it can be configured. One that holds the lock but
// does not answer, or is of another kind, is ended first.
func (p *engineProcess) start(ctx context.Context, kind engine.Kind) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	if p.answers(ctx, kind) {
		return nil
	}
	if err := p.end(ctx); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("start engine of %s: %w", p.iface, err)
	}
	defer r.Close()
	pid, err := p.spawn(kind, w)
	_ = w.Close()
	if err != nil {
		return fmt.Errorf("start engine of %s: %w", p.iface, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	said, err := io.ReadAll(io.LimitReader(r, 4096))
	switch {
	case string(said) == engine.ReadyLine:
		p.log.Info().Int("pid", pid).Str("engine", string(kind)).Msg("engine started")
		return nil
	case err != nil:
		_ = syscall.Kill(pid, syscall.SIGKILL) // our child, not reaped yet: the number is still its
		return fmt.Errorf("start engine of %s: not ready in time: %w (its log: %s)", p.iface, err, p.logPath())
	case len(said) > 0:
		return fmt.Errorf("start engine of %s: %s", p.iface, said)
	}
	return fmt.Errorf("start engine of %s: it ended at once (its log: %s)", p.iface, p.logPath())
}

// spawn starts the process, which tells ready when it is.
func (p *engineProcess) spawn(kind engine.Kind, ready *os.File) (pid int, err error) {
	if err := os.MkdirAll(p.runDir, 0o755); err != nil {
		return 0, err
	}
	if info, err := os.Stat(p.logPath()); err == nil && info.Size() > logMax {
		_ = os.Truncate(p.logPath(), 0)
	}
	log, err := os.OpenFile(p.logPath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	cmd := exec.Command(p.executable, "engine", p.iface,
		"--engine", string(kind), "--run-dir", p.runDir, "--ready-fd", "3")
	if p.noOffload != "" {
		cmd.Args = append(cmd.Args, "--no-offload="+p.noOffload)
	}
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // passwords of the daemon are not the engine's business
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{ready}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	pid = cmd.Process.Pid
	p.mu.Lock()
	p.children = append(p.children, pid)
	p.mu.Unlock()
	return pid, cmd.Process.Release()
}

// reap collects children that ended. Nobody waits for them: they are to outlive us.
func (p *engineProcess) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var alive []int
	for _, pid := range p.children {
		if got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); got == 0 && err == nil {
			alive = append(alive, pid)
		}
	}
	p.children = alive
}

// end ends the running engine and waits for its end: by request, then by SIGKILL. The TUN
// device stays.
func (p *engineProcess) end(ctx context.Context) error {
	defer p.reap()
	if _, running, err := engine.Running(p.runDir, p.iface); err != nil || !running {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, orderWithin)
	failed := engine.Stop(asking, p.runDir, p.iface)
	cancel()
	if failed == nil && p.gone(ctx, endWithin) {
		return nil
	}
	if err := p.kill(ctx); err != nil {
		return errors.Join(err, failed)
	}
	return nil
}

// kill ends the running engine by SIGKILL and waits for its end. The number in the lock file
// is not used: the engine wrote the number that it has in its own PID namespace, and in ours
// another process may have that number.
func (p *engineProcess) kill(ctx context.Context) error {
	defer p.reap()
	pid := p.pid(ctx)
	if pid == 0 {
		return fmt.Errorf("end engine of %s: this process cannot see the engine's process, which runs in another PID namespace: "+
			"end the engine in the container or on the host that started it", p.iface)
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return fmt.Errorf("end engine of %s: %w", p.iface, err)
	}
	defer process.Release() // the handle (pidfd), not the process
	// The handle belongs to the engine if the kernel still gives this number after it was made.
	if p.pid(ctx) == pid {
		if err := process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("end engine of %s: %w", p.iface, err)
		}
	}
	if !p.gone(ctx, endWithin) {
		return fmt.Errorf("end engine of %s: process %d did not end within %v of SIGKILL", p.iface, pid, endWithin)
	}
	return nil
}

// pid returns the engine's process as the kernel gives it to this process: the listener of
// its control socket, or, where that socket is gone or full, the holder of its lock. 0 means
// that this process cannot see it.
func (p *engineProcess) pid(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, answerSoon)
	defer cancel()
	if pid := engine.PID(ctx, p.runDir, p.iface); pid != 0 {
		return pid
	}
	return lockHolder("/proc", engine.LockPath(p.runDir, p.iface))
}

// progress returns the CPU time of the engine's process.
func (p *engineProcess) progress(ctx context.Context) time.Duration {
	pid := p.pid(ctx)
	if pid == 0 {
		return 0
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	used, _ := parseCPUTime(string(text))
	return used
}

// answers reports whether an engine of that kind runs and accepts connections. An engine
// that stood by for another engine needs a moment until it does.
func (p *engineProcess) answers(ctx context.Context, kind engine.Kind) bool {
	ctx, cancel := context.WithTimeout(ctx, answerSoon)
	defer cancel()
	for {
		if o, running, err := engine.Running(p.runDir, p.iface); err != nil || !running || o.Kind != kind {
			return false
		}
		if c, err := new(net.Dialer).DialContext(ctx, "unix", engine.SocketPath(p.iface)); err == nil {
			return c.Close() == nil
		}
		if !wait.For(ctx, pollEvery) {
			return false
		}
	}
}

// gone waits until no engine runs, and reports whether the engine ended within the limit.
func (p *engineProcess) gone(ctx context.Context, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if _, running, err := engine.Running(p.runDir, p.iface); err == nil && !running {
			return true
		}
		if !wait.For(ctx, pollEvery) {
			return false
		}
	}
}

// clear waits for the engine to notice that its interface is gone, ends it if it does not,
// and removes its files.
func (p *engineProcess) clear(ctx context.Context) error {
	if !p.gone(ctx, endWithin/2) {
		if err := p.end(ctx); err != nil {
			return err
		}
	}
	p.reap()
	var errs []error
	for _, path := range p.files() {
		if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (p *engineProcess) files() []string {
	return []string{engine.SocketPath(p.iface), engine.ControlPath(p.runDir, p.iface), engine.LockPath(p.runDir, p.iface), p.logPath(),
		engine.StampPath(p.runDir, p.iface), EndpointPath(p.runDir, p.iface)}
}
