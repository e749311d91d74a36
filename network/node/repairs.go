package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/loden-net/loden/network/node/history"
)

// AskEvents asks the daemon of this node for its last events, the newest last. Errors:
// ErrNoDaemon.
func AskEvents(ctx context.Context, runDir string) ([]history.Event, error) {
	resp, err := request(ctx, runDir, http.MethodGet, "/events")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var body struct {
		Events []history.Event `json:"events"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	return body.Events, nil
}

// The repairs that a finding tells: those of the last minutes, and so many of them.
const (
	repairsSince = 10 * time.Minute
	maxRepairs   = 5
)

// repairs tells which objects of the node another program removed or changed a short while ago,
// so that an operator can look for that program. A repaired object is no fault any more.
func repairs(events []history.Event, now time.Time) Finding {
	f := Finding{What: "repairs", State: Good, Detail: fmt.Sprintf("none in the last %v", repairsSince)}
	recent := slices.DeleteFunc(slices.Clone(events), func(e history.Event) bool {
		return e.Kind != history.Repaired && e.Kind != history.Engine || now.Sub(e.At) > repairsSince
	})
	if len(recent) == 0 {
		return f
	}
	var parts []string
	for _, e := range slices.Backward(recent) {
		if len(parts) < maxRepairs {
			parts = append(parts, fmt.Sprintf("%v ago %s: %s", now.Sub(e.At).Round(time.Second), e.Object, e.Text))
		}
	}
	f.Detail = fmt.Sprintf("%d in the last %v: %s", len(recent), repairsSince, strings.Join(parts, "; "))
	f.Remedy = "loden has mended it; if it comes again, find the program that does it (a firewall or network service, a cron job)"
	return f
}

// lost records that the lease in the store was lost.
func (r *recorder) lost(err error) {
	r.events.Add(history.Event{At: time.Now(), Kind: history.Repaired, Object: "lease", Text: "was lost in the store (" + oneLine(fmt.Sprint(err)) + "), and is claimed again with the same subnets"})
}
