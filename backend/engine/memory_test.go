package engine

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// resident returns a part of the resident set of this process, in bytes.
func resident(t *testing.T, part string) int {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), part+":")
	n, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n << 10
}

func TestMemoryOfALargeConfigurationIsGivenBack(t *testing.T) {
	const size = 64 << 20
	m := &memory{log: zerolog.Nop()}
	defer m.stop()
	before := resident(t, "RssAnon")
	garbage := make([]byte, size)
	for i := range garbage {
		garbage[i] = 1
	}
	runtime.KeepAlive(garbage)
	garbage = nil
	if now := resident(t, "RssAnon"); now-before < size/2 {
		t.Fatalf("%d bytes of garbage added %d bytes to the resident set: the test proves nothing", size, now-before)
	}
	m.used()
	for end := time.Now().Add(trimDelay + 20*time.Second); resident(t, "RssAnon")-before > size/2; {
		if time.Now().After(end) {
			t.Fatalf("%d bytes are still resident", resident(t, "RssAnon")-before)
		}
		runtime.Gosched()
		<-time.After(10 * time.Millisecond)
	}
}

func TestMemoryIsNotCollectedAgainForLittleGarbage(t *testing.T) {
	m := &memory{log: zerolog.Nop(), allocated: allocatedBytes(), trimmedAt: time.Unix(1, 0)}
	defer m.stop()
	if m.trim(); m.trimmedAt != time.Unix(1, 0) {
		t.Error("a collection ran though the process had allocated hardly a byte since the last collection")
	}
}

func TestProgramGoesOnWithoutItsCode(t *testing.T) {
	if err := dropCode(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Repeat("a", 3); got != "aaa" { // any code at all
		t.Errorf("got %q", got)
	}
}
