package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	netnsDir = "/run/netns" // where ip-netns(8) keeps names
	hostsDir = "/run/hosts" // backing of each host's own directories
)

// ownDirs are the directories that differ from host to host; all else is the machine's.
var ownDirs = []string{
	"/run/wireguard", "/run/loden", "/run/flannel", "/run/lock",
	"/var/lib/loden", "/var/lib/cni", "/etc/cni/net.d",
}

// lockThread keeps the calling goroutine on its thread for good: the thread's namespace
// or death signal is part of the goroutine's work.
func lockThread() { runtime.LockOSThread() }

// Host is a machine of the sandbox: a network namespace with directories of its own under
// the standard paths, so that several run the same daemon with default settings.
type Host struct {
	Name string
}

// NewHost makes a host with only a loopback interface. Call Close, or let it end with the
// sandbox.
func NewHost(name string) (*Host, error) {
	h := &Host{Name: name}
	if err := run("ip", "netns", "add", name); err != nil {
		return nil, err
	}
	for _, dir := range ownDirs {
		if err := os.MkdirAll(h.Path(dir), 0o755); err != nil {
			return nil, fmt.Errorf("make host %s: %w", name, err)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil { // the mount point
			return nil, fmt.Errorf("make host %s: %w", name, err)
		}
	}
	lock := filepath.Join(hostsDir, name, "xtables.lock")
	if err := os.WriteFile(lock, nil, 0o600); err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	return h, h.IP("link set dev lo up")
}

// Path returns the machine's path of a path on the host, for the directories that
// are the host's own.
func (h *Host) Path(path string) string { return filepath.Join(hostsDir, h.Name, path) }

// NetNS returns the path of the host's network namespace.
func (h *Host) NetNS() string { return filepath.Join(netnsDir, h.Name) }

// EnterNetNS moves the calling thread into the network namespace at path. The caller has
// locked the thread to its goroutine and never unlocks it, so the thread ends with the goroutine.
func EnterNetNS(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

// Command returns a command that will run on the host. Its process is the command itself
// (every wrapper replaces itself by exec), so the command's PID is the PID to signal.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	var script strings.Builder
	for _, dir := range ownDirs {
		fmt.Fprintf(&script, "mount --bind %s %s; ", h.Path(dir), dir)
	}
	fmt.Fprintf(&script, "touch /run/xtables.lock; mount --bind %s/%s/xtables.lock /run/xtables.lock; ", hostsDir, h.Name)
	script.WriteString(`exec "$0" "$@"`)
	full := append([]string{"--net=" + h.NetNS(), "unshare", "--mount", "sh", "-c", script.String(), name}, args...)
	return exec.CommandContext(ctx, "nsenter", full...)
}

// Run runs a short command on the host; the error has the command's output.
func (h *Host) Run(name string, args ...string) error {
	_, err := h.Output(name, args...)
	return err
}

// Output runs a short command on the host and returns its output on both streams.
func (h *Host) Output(name string, args ...string) (string, error) {
	out, err := h.Command(context.Background(), name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("run %s %s on %s: %w: %s", name, strings.Join(args, " "), h.Name, err, out)
	}
	return string(out), nil
}

// IP runs commands of ip(8) in the host's network namespace, all in a process: hundreds of hosts are
// made in seconds. ip(8) sees the machine's own directories.
func (h *Host) IP(commands ...string) error {
	cmd := exec.Command("ip", "-n", h.Name, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run ip on %s: %w: %s", h.Name, err, out)
	}
	return nil
}

// Do runs fn with the calling thread inside the host's network namespace: sockets and
// netlink handles that fn opens belong to it for good. Goroutines that fn starts do not
// inherit it.
func (h *Host) Do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if err := EnterNetNS(h.NetNS()); err != nil {
			done <- fmt.Errorf("enter host %s: %w", h.Name, err)
			return
		}
		done <- fn()
	}()
	return <-done
}

// Close removes the host's namespace and its directories, so that a later host of the same
// name starts as new. Processes on it keep the namespace alive until they end; see Kill.
func (h *Host) Close() error {
	return errors.Join(run("ip", "netns", "del", h.Name), os.RemoveAll(filepath.Join(hostsDir, h.Name)))
}

// Wire joins two hosts by a veth pair, both ends up.
func Wire(a *Host, aName string, b *Host, bName string) error {
	err := run("ip", "link", "add", aName, "netns", a.Name, "type", "veth", "peer", "name", bName, "netns", b.Name)
	if err != nil {
		return err
	}
	return errors.Join(a.IP("link set dev "+aName+" up"), b.IP("link set dev "+bName+" up"))
}

// PIDs returns the processes on the host. The program itself is left out: a thread of it
// may be there, see Do.
func (h *Host) PIDs() ([]string, error) {
	out, err := exec.Command("ip", "netns", "pids", h.Name).Output()
	if err != nil {
		return nil, fmt.Errorf("list processes of %s: %w", h.Name, err)
	}
	self := strconv.Itoa(os.Getpid())
	return slices.DeleteFunc(strings.Fields(string(out)), func(pid string) bool { return pid == self }), nil
}

// Kill ends every process on the host by SIGKILL, and those that start meanwhile.
func (h *Host) Kill() error { return KillAll(h) }

// Send puts an Ethernet frame on one of the host's links as it is.
func (h *Host) Send(iface string, frame []byte) error {
	return h.Do(func() error {
		link, err := net.InterfaceByName(iface)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		return os.NewSyscallError("sendto", unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}))
	})
}
