package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// KillAll ends every process on the hosts by SIGKILL, and those that start meanwhile. It reads the
// list of processes a few times in all, not a few times for each host.
func KillAll(hosts ...*Host) error {
	names := map[uint64]string{} // by the inode of the network namespace
	for _, h := range hosts {
		if inode, err := inodeOf(h.NetNS()); err == nil { // a host without a namespace has no process
			names[inode] = h.Name
		}
	}
	last := ""
	for range 1000 { // processes that make processes: each round ends the children that the last round missed
		pids, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			return err
		}
		found := false
		for _, dir := range pids {
			pid, err := strconv.Atoi(filepath.Base(dir))
			if err != nil || pid <= 1 || pid == os.Getpid() { // a thread of this program may be on a host, see Do
				continue
			}
			inode, err := inodeOf(dir + "/ns/net")
			if name, ok := names[inode]; err == nil && ok { // else it has ended by itself
				found, last = true, name
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if !found {
			return nil
		}
	}
	return fmt.Errorf("processes on %s do not end", last)
}

// inodeOf returns the number by which the kernel knows a namespace.
func inodeOf(path string) (uint64, error) {
	var s syscall.Stat_t
	err := syscall.Stat(path, &s)
	return s.Ino, err
}
