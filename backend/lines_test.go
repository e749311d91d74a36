package backend_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// lines collects the lines that a process prints.
type lines struct {
	mu   sync.Mutex
	text strings.Builder // guarded by mu
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// count returns the number of lines that contain the text.
func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what+"\n")
}

// await waits until at least n lines contain the text.
func (l *lines) await(t testing.TB, what string, n int) {
	t.Helper()
	sandboxtest.Until(t, 20*time.Second, what, func() error {
		if got := l.count(what); got < n {
			return fmt.Errorf("%d of %d", got, n)
		}
		return nil
	})
}
