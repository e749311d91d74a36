package engine

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// loadLasts is how long load is remembered.
const loadLasts = time.Second

// processors is how many processors Go schedules the process on: one while packets come
// singly, all that there are under load.
//
// With more than one, Go wakes a second thread whenever a first one finds work, in case
// there is more (runtime.wakep), and the kernel lets it run on another, sleeping core. One
// packet at a time is handled before that core is awake, and the threads then answer each
// other from core to core. Seen on two virtual cores: a wake-up takes 3 µs on the same core
// and 55 µs on the other one, and a ping through two engines waits for four to six.
type processors struct {
	all    int // as the process began
	loaded atomic.Int64
	wide   atomic.Bool

	mu      sync.Mutex // guards what follows
	timer   *time.Timer
	stopped bool
}

// narrow begins with one processor. Stop it to have all again.
func narrow() *processors {
	p := &processors{all: runtime.GOMAXPROCS(1)}
	return p
}

// load says that a direction has more to do than one packet. It is cheap, and waits only
// when load begins: some ten microseconds.
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
	p.timer = time.AfterFunc(loadLasts, p.look)
}

// look goes back to one processor when there was no load for a while.
func (p *processors) look() {
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

// stop gives the process all processors back, for good.
func (p *processors) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.timer != nil {
		p.timer.Stop()
	}
	runtime.GOMAXPROCS(p.all)
}
