package engine

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// The processors of an engine process are a trick, and this file is all of it. The switch that
// turns it off is Options.FixedProcessors (loden engine --fixed-processors). The trick may go when
// BenchmarkWakeUp, on an idle machine, takes no longer with all processors than with a single one.

// loadLasts is how long the engine stays on all processors after the last load.
const loadLasts = time.Second

// processors switches the number of processors on which Go schedules the process: one while
// packets come singly, all of them under load.
//
// With several processors Go wakes a second thread whenever a thread finds work, in case more
// work follows (runtime.wakep), and the kernel places that thread on another, sleeping core. The
// engine has handled a single packet before that core is awake, and the threads then wake each
// other from core to core. Seen on two virtual cores (November 2026): a wake-up takes 3 µs on the
// same core and 55 µs on the other core, and a ping through two engines waits for four to six.
type processors struct {
	all    int // at the start of the process
	loaded atomic.Int64
	wide   atomic.Bool

	mu      sync.Mutex // guards the fields below
	timer   *time.Timer
	stopped bool
}

// adaptProcessors restricts Go to a single processor until the first load. Stop ends that.
func adaptProcessors() *processors { return &processors{all: runtime.GOMAXPROCS(1)} }

// load records that a direction has several packets to move. It is cheap, and waits only when
// load begins: some ten microseconds, for the runtime to stop and start its processors.
func (p *processors) load() {
	p.loaded.Store(time.Now().UnixNano())
	if p.wide.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || p.wide.Swap(true) {
		return
	}
	runtime.GOMAXPROCS(p.all)
	p.timer = time.AfterFunc(loadLasts, p.narrow)
}

// narrow goes back to a single processor when the last load is older than loadLasts.
func (p *processors) narrow() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped {
		return
	}
	if ago := time.Duration(time.Now().UnixNano() - p.loaded.Load()); ago < loadLasts {
		p.timer.Reset(loadLasts - ago)
		return
	}
	runtime.GOMAXPROCS(1)
	p.wide.Store(false)
}

// stop gives all processors back to the process, for good.
func (p *processors) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.timer != nil {
		p.timer.Stop()
	}
	runtime.GOMAXPROCS(p.all)
}
