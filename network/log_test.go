package network_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config/diff"
	"github.com/loden-net/loden/network"
)

// A start is a single line for people; afterwards each change is a line, with the name of the
// node beside its key.
func TestChangesOfAStartAreForTheDebugLevelAndLaterChangesNameTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBed(t)
		var log strings.Builder
		in := inputs(t, dualDocument, 0)
		have := ""
		changes := func(want network.State) ([]diff.Change, error) {
			var out []diff.Change
			device, _ := want.Device.Get()
			for p := range device.Peers.All() {
				if object := fmt.Sprintf("peer %s at %s", p.Key, p.Endpoint); !strings.Contains(have, object) {
					out = append(out, diff.Change{Verb: "add", Object: object, Run: func(context.Context) error { have += object; return nil }})
				}
			}
			return out, nil
		}
		part := network.Part{
			Name:    "device",
			Changes: func(_ context.Context, want network.State) ([]diff.Change, error) { return changes(want) },
			Follow:  func(_ context.Context, _, want network.State) ([]diff.Change, error) { return changes(want) },
		}
		b.reconciler = network.New(network.Options{Self: in.Self, Host: b.host, Log: zerolog.New(&log).Level(zerolog.InfoLevel), Parts: []network.Part{part}})
		b.offer(2)
		b.run(t, time.Minute)
		time.Sleep(time.Second) // fake time of synctest
		synctest.Wait()
		if strings.Contains(log.String(), `"changed"`) || !strings.Contains(have, "peer ") {
			t.Errorf("at the start:\n%s", log.String())
		}
		b.offer(3)
		synctest.Wait()
		if got := log.String(); strings.Count(got, `"changed"`) != 1 || !strings.Contains(got, fmt.Sprintf(`"node":%q,"part":"device","verb":"add","object":"peer %s`, node(3).Node, node(3).Key)) {
			t.Errorf("after a join:\n%s", got)
		}
		b.end(t)
	})
}
