package backend

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of CPU times in /proc: USER_HZ, which is 100 on every Linux
// architecture that Go supports (include/asm-generic/param.h).
const clockTick = 10 * time.Millisecond

// parseCPUTime reads the CPU time, user and system, from the text of /proc/PID/stat: fields 14
// and 15 (proc_pid_stat(5)). The second field is the name of the program in parentheses, and
// may contain spaces and parentheses itself. ok is false for any other text.
func parseCPUTime(stat string) (used time.Duration, ok bool) {
	end := strings.LastIndexByte(stat, ')')
	if end < 0 {
		return 0, false
	}
	fields := strings.Fields(stat[end+1:]) // begins with field 3, the state
	if len(fields) < 13 {
		return 0, false
	}
	for _, f := range fields[11:13] {
		ticks, err := strconv.ParseInt(f, 10, 48)
		if err != nil || ticks < 0 {
			return 0, false
		}
		used += time.Duration(ticks) * clockTick
	}
	return used, true
}

// lockHolder returns the process that has the file open with a lock on its open file
// description, 0 without a visible holder. fcntl(2) does not tell the holder of such a lock,
// but /proc/PID/fdinfo/FD has a line about it: "lock: 1: OFDLCK ADVISORY WRITE -1 00:1a:4711 0
// 0". The descriptor must be of the same file: inode numbers alone repeat on every file system.
// proc is the directory of the process file system.
func lockHolder(proc, path string) int {
	file, err := os.Stat(path)
	if err != nil {
		return 0
	}
	descriptors, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "fd", "*")) // fails on a bad pattern only
	for _, name := range descriptors {
		open, err := os.Stat(name)
		if err != nil || !os.SameFile(file, open) {
			continue // another file, or the process ended
		}
		process := filepath.Dir(filepath.Dir(name))
		text, err := os.ReadFile(filepath.Join(process, "fdinfo", filepath.Base(name)))
		if err != nil || !holdsLock(string(text)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(process)); err == nil && pid != os.Getpid() {
			return pid
		}
	}
	return 0
}

// holdsLock reports whether the text of an fdinfo file names a lock of an open file
// description.
func holdsLock(fdinfo string) bool {
	for line := range strings.Lines(fdinfo) {
		if strings.HasPrefix(line, "lock:") && strings.Contains(line, "OFDLCK") {
			return true
		}
	}
	return false
}
