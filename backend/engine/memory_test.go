package engine

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// held returns the bytes of the heap that the kernel has given and that were not given back. Unlike
// the resident set it does not grow with the race detector's memory.
func held() int {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapSys - m.HeapReleased)
}

func TestMemoryOfALargeConfigurationIsGivenBack(t *testing.T) {
	const size = 64 << 20
	m := &memory{log: zerolog.Nop()}
	defer m.stop()
	before := held()
	garbage := make([]byte, size)
	for i := range garbage {
		garbage[i] = 1
	}
	runtime.KeepAlive(garbage)
	garbage = nil
	if now := held(); now-before < size/2 {
		t.Fatalf("%d bytes of garbage added %d bytes to the heap: the test proves nothing", size, now-before)
	}
	m.used()
	for end := time.Now().Add(trimDelay + 20*time.Second); held()-before > size/2; {
		if time.Now().After(end) {
			t.Fatalf("%d bytes were not given back", held()-before)
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
