package backend

import (
	"context"
	"time"

	"github.com/loden-net/loden/config/opt"
)

// answer is the end of a request to an engine.
type answer struct {
	wg  opt.Option[live]
	err error
}

// An engine hangs when it has given no answer and used no CPU time in five looks, a second
// apart. Looks are counted instead of time, because a machine that was suspended, or is too
// busy for this process as well, makes the time pass without a chance for the engine.
const (
	hungAfter = 5
	lookEvery = time.Second
)

// await waits for the answer of the engine; false when the engine hangs. progress returns the
// CPU time that the engine has used.
func await(ctx context.Context, answers <-chan answer, progress func(context.Context) time.Duration) (answer, bool) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	last, idle := time.Duration(-1), 0
	for {
		select {
		case a := <-answers:
			return a, true
		case <-ticker.C:
			used := progress(ctx)
			idle++
			if used != last && last >= 0 {
				idle = 0
			}
			last = used
			if idle >= hungAfter {
				return answer{}, false
			}
		}
	}
}
