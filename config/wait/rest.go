package wait

import "time"

// restFor is the rest after work, in units of the time that the work took: a tenth of the time
// is then work.
const restFor = 9

// Rest returns how long to rest after work that took the time, before the same work is done
// again for further changes of other nodes. The rest merges a burst of changes, grows with the
// cost of the work, and is over before the next change when changes are rare. Two stages follow
// the store in this way, the watch of the leases and the reconciler, so that they use a fifth of
// a processor at most, however many nodes come and go.
func Rest(took time.Duration) time.Duration { return restFor * max(took, 0) }
