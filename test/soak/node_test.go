package soak_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/test/sandbox"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// node is a host with an engine. Node n is 192.0.2.n and 2001:db8::n outside, 10.0.0.n and
// fd00::n inside.
type node struct {
	t               *testing.T
	n               int
	host            *sandbox.Host
	program, engine string
	steady          bool // never restarted: its memory is watched
	id              *noise.Identity
	port            int

	cmd   *exec.Cmd
	log   *lockedBuffer
	said  chan health
	ended chan struct{} // closed when the process has ended, with err
	err   error
	stops bool // it is to end
	mu    sync.Mutex
}

// health is the answer of an engine to SIGUSR1, with its figures from /proc.
type health struct {
	Goroutines int `json:"goroutines"`
	Heap       int `json:"heap"`
	rss        int // bytes
}

// lockedBuffer keeps the log of an engine.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// buildEngine builds the engine program, without access to the network.
func buildEngine(t *testing.T, race bool) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "engine")
	args := []string{"build", "-o", file}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./engine")...)
	cmd.Env = append(os.Environ(), "GOPROXY=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build engine: %v: %s", err, out)
	}
	return file
}

func newNode(t *testing.T, n int, program, engine string) *node {
	t.Helper()
	x := &node{
		t: t, n: n, host: sandboxtest.Host(t, fmt.Sprint("node", n)), program: program, engine: engine,
		port: 51820, log: &lockedBuffer{},
	}
	x.newKey()
	t.Cleanup(func() {
		if x.cmd != nil {
			x.kill(syscall.SIGKILL)
		}
		if t.Failed() {
			t.Logf("node %d (%s) said:\n%s", n, engine, tail(x.log.String(), 8000))
		}
	})
	return x
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func (x *node) newKey() {
	var private noise.Key
	rand.Read(private[:])
	id, err := noise.NewIdentity(private)
	if err != nil {
		x.t.Fatal(err)
	}
	x.id = id
}

// endpoint is where the node is reached.
func (x *node) endpoint(v6 bool) string {
	if v6 {
		return fmt.Sprintf("[2001:db8::%d]:%d", x.n, x.port)
	}
	return fmt.Sprintf("192.0.2.%d:%d", x.n, x.port)
}

// start runs the engine and waits for its UAPI socket.
func (x *node) start() error {
	// A race or a leak ends the program with another status than 0.
	x.cmd = x.host.Command(context.Background(), "env", "GORACE=halt_on_error=1", x.program, x.engine, "wg0")
	x.cmd.Stderr = x.log
	out, err := x.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := x.cmd.Start(); err != nil {
		return err
	}
	x.said, x.ended = make(chan health, 8), make(chan struct{})
	x.setStops(false)
	go x.watch(x.cmd, out, x.said, x.ended)
	sandboxtest.Until(x.t, 20*time.Second, "the engine's socket", func() error {
		c, err := net.Dial("unix", x.socket())
		if err == nil {
			err = c.Close()
		}
		return err
	})
	return nil
}

// watch reads the log of the engine until the engine ends, which it must not do by itself.
func (x *node) watch(cmd *exec.Cmd, out io.Reader, said chan<- health, ended chan<- struct{}) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var h health
		if json.Unmarshal(lines.Bytes(), &h) == nil {
			said <- h
		}
	}
	err := cmd.Wait()
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.stops {
		x.t.Errorf("node %d (%s) ended by itself: %v", x.n, x.engine, err)
	}
	x.err = err
	close(ended)
}

func (x *node) setStops(stops bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.stops = stops
}

// kill ends the engine and returns how it ended.
func (x *node) kill(signal syscall.Signal) error {
	x.setStops(true)
	_ = x.cmd.Process.Signal(signal) // it may have ended by itself
	select {
	case <-x.ended:
	case <-time.After(30 * time.Second):
		x.t.Errorf("node %d does not end", x.n)
		_ = x.cmd.Process.Kill()
		<-x.ended
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.err
}

// terminate ends the engine, which then looks for goroutines it has left.
func (x *node) terminate() {
	if err := x.kill(syscall.SIGTERM); err != nil {
		x.t.Errorf("node %d (%s) ended with %v", x.n, x.engine, err)
	}
}

// up gives the interface its addresses, which it keeps when the engine ends.
func (x *node) up() error {
	for _, line := range []string{
		"link set wg0 mtu 1420 up",
		fmt.Sprintf("addr add 10.0.0.%d/24 dev wg0", x.n), fmt.Sprintf("addr add fd00::%d/64 dev wg0 nodad", x.n),
	} {
		if err := x.host.Run("ip", strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

func (x *node) socket() string { return filepath.Join(x.host.Path("/run/wireguard"), "wg0.sock") }

// set configures the engine.
func (x *node) set(text string) error {
	c, err := net.Dial("unix", x.socket())
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "set=1\n"+text+"\n"); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && answer != "errno=0\n" {
		err = fmt.Errorf("configure node %d: %s for\n%s", x.n, strings.TrimSpace(answer), text)
	}
	return err
}

// describe returns the configuration that the engine reports, without its secrets, and the
// neighbours that the host knows.
func (x *node) describe() string {
	c, err := net.Dial("unix", x.socket())
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, "get=1\n\n")
	b := &strings.Builder{}
	for lines := bufio.NewScanner(c); lines.Scan() && lines.Text() != ""; {
		if !strings.HasPrefix(lines.Text(), "private_key") && !strings.HasPrefix(lines.Text(), "preshared_key") {
			fmt.Fprintln(b, lines.Text())
		}
	}
	neighbours, _ := x.host.Output("ip", "neigh")
	return fmt.Sprintf("%s\n%s%s", x.id.Public().Hex(), b, neighbours)
}

// health asks the engine how it is.
func (x *node) health() health {
	pid := x.cmd.Process.Pid
	rss := residentBytes(x.t, pid) // before it collects
	_ = x.cmd.Process.Signal(syscall.SIGUSR1)
	select {
	case h := <-x.said:
		h.rss = rss
		return h
	case <-time.After(20 * time.Second):
		x.t.Errorf("node %d does not say how it is", x.n)
		return health{rss: rss}
	}
}

// residentBytes reads a process's resident set.
func residentBytes(t *testing.T, pid int) (size int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Error(err)
		return 0
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	if _, err := fmt.Sscanf(after, "%d", &size); err != nil {
		t.Errorf("read resident set: %v", err)
	}
	return size << 10
}
