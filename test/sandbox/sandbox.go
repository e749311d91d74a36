// Package sandbox owns whole networks on one machine: fresh namespaces that hold hosts
// and the wires between them. The lab and every test that needs a kernel are built on it.
// It does not know leases, WireGuard or rules.
//
//	machine ── Enter ──► private network, mount, process and (without root) user namespace
//	                      with a /run of its own; ends whole with the program
//	                       ├─ Host "node1"   network namespace, own /run/wireguard, /var/lib/loden …
//	                       ├─ Host "node2"
//	                       └─ Wire           a veth pair between two of them
//
// A sandbox leaves no trace: namespaces and mounts die with the last process in them, and
// every process in the sandbox dies with its init, even on SIGKILL.
package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageEnv tells a program which part of Enter it is running as.
const stageEnv = "LODEN_SANDBOX_STAGE"

// InsideEnv is in the initial environment of a program that runs inside its sandbox, and
// of no other process: readers of /proc/PID/environ recognise the sandbox by it.
const InsideEnv = stageEnv + "=inside"

// Enter moves the program into a sandbox. The process that calls it becomes a waiting
// parent that starts the same program again inside and ends with its exit status; only
// the inner one returns. Call it first thing in main or TestMain.
//
// Inside: PID 1 is a small init that reaps orphans; /run is an empty tmpfs; what is written
// below /etc, /var/lib and /opt stays inside; the rest of the file system is the machine's;
// lo is up. It needs root, or a kernel that
// gives unprivileged users namespaces.
func Enter() error {
	_, err := EnterWith(func() []*os.File { return nil })
	return err
}

// EnterWith is Enter that takes files of the machine along, such as a listener on the machine's
// loopback: open runs outside, and its files are returned inside, in the same order.
func EnterWith(open func() []*os.File) ([]*os.File, error) {
	switch os.Getenv(stageEnv) {
	case "":
		os.Exit(outer(open()))
	case "init":
		os.Exit(initProcess(inherited()))
	}
	files := inherited()
	for _, f := range files {
		syscall.CloseOnExec(int(f.Fd())) // they are for this program alone
	}
	return files, errors.Join(os.Unsetenv(filesEnv), os.Unsetenv(stageEnv))
}

// filesEnv tells the next stage how many files it inherits, from descriptor 3 on.
const filesEnv = "LODEN_SANDBOX_FILES"

// inherited returns the files that the stage before passed on.
func inherited() (files []*os.File) {
	n, _ := strconv.Atoi(os.Getenv(filesEnv)) // absent: none
	for fd := range n {
		files = append(files, os.NewFile(uintptr(3+fd), "inherited"))
	}
	return files
}

// outer starts the init of the sandbox, passes files and signals on, and returns its exit status.
func outer(files []*os.File) int {
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	return child("init", attr, files)
}

// initProcess prepares the mounts as PID 1, starts the program proper and reaps.
func initProcess(files []*os.File) int {
	if err := mounts(); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		return 125
	}
	return child("inside", &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}, files)
}

// child runs this program again as the given stage and returns its exit status. It reaps
// whatever else becomes its child meanwhile: engines and daemons that detach end up here.
func child(stage string, attr *syscall.SysProcAttr, files []*os.File) int {
	exe, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		return 125
	}
	// Pdeathsig fires when the thread that forked ends, so this goroutine keeps its thread.
	lockThread()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageEnv+"="+stage, fmt.Sprintf("%s=%d", filesEnv, len(files)))
	cmd.ExtraFiles = files
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		fmt.Fprintf(os.Stderr, "sandbox: make namespaces: %v (run it as root, or allow unprivileged user namespaces)\n", err)
		return 125
	}
	go forward(signals, cmd.Process.Pid)
	return reap(cmd.Process.Pid)
}

// forward passes signals to pid. A terminal's Ctrl-C reaches the whole process group by
// itself; the second copy of the signal does no harm.
func forward(signals <-chan os.Signal, pid int) {
	for s := range signals {
		if s, ok := s.(syscall.Signal); ok && s != syscall.SIGINT {
			_ = syscall.Kill(pid, s)
		}
	}
}

// reap waits for every child until pid has ended and returns its exit status.
func reap(pid int) int {
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return 125
		case got != pid:
			continue
		case status.Signaled():
			return 128 + int(status.Signal())
		}
		return status.ExitStatus()
	}
}

// mounts gives the sandbox a /proc of its own processes and an empty /run.
func mounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := unix.Mount("run", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{"/etc", "/var/lib", "/opt"} {
		if err := overlay(dir); err != nil {
			return err
		}
	}
	return run("ip", "link", "set", "lo", "up")
}

// overlay makes writes below dir private to the sandbox: they end in its own /run.
func overlay(dir string) error {
	base := "/run/overlay" + dir
	upper, work := base+"/upper", base+"/work"
	for _, d := range []string{upper, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", dir, upper, work)
	if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
		return fmt.Errorf("mount overlay on %s: %w", dir, err)
	}
	return nil
}

// run executes a short command and puts its output into the error.
func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("run %s %v: %w: %s", name, args, err, out)
	}
	return nil
}
