//go:build k8s

package k8s

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// patience is how long a program may take to end when asked; then it is killed.
const patience = 5 * time.Second

// process is a program of the cluster, with its log.
type process struct {
	name string
	log  string // path
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// start starts a program that ends with the test at the latest. After a failure the end of
// its output is shown.
func start(t *testing.T, name string, cmd *exec.Cmd, log string) *process {
	t.Helper()
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	p := &process{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // most are ended by a signal
		close(p.done)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s said:\n%s", p.name, p.tail(3000))
		}
		p.stop(t)
	})
	return p
}

// running returns an error when the program has ended by itself.
func (p *process) running() error {
	select {
	case <-p.done:
		return errors.New(p.name + " ended: " + p.tail(1000))
	default:
		return nil
	}
}

// stop ends the program; a second call has no effect.
func (p *process) stop(t *testing.T) {
	t.Helper()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("signal %s: %v", p.name, err)
		}
		select {
		case <-p.done:
			return
		case <-time.After(patience):
		}
	}
	t.Errorf("%s does not end", p.name)
}

// tail returns the last bytes of the log, whole lines.
func (p *process) tail(size int) string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(data) > size {
		data = data[len(data)-size:]
		data = data[bytes.IndexByte(data, '\n')+1:]
	}
	return string(data)
}
