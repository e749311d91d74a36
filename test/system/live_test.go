package system_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/test/lab"
)

// TestLiveTableSeesAPulledCableWithinFiveSeconds cuts a node off the underlay and puts it back.
func TestLiveTableSeesAPulledCableWithinFiveSeconds(t *testing.T) {
	l := upLab(t, lab.Options{Nodes: 2, Pods: 1, Families: lab.IPv4})
	ctx, stop := context.WithTimeout(t.Context(), 60*time.Second)
	defer stop()
	var pulled, healed time.Time
	err := l.Live(ctx, func(paths []lab.LivePath) {
		down := 0
		for _, p := range paths {
			if p.Down() {
				down++
			}
		}
		answered := paths[0].Latency > 0 && paths[1].Latency > 0
		switch {
		case pulled.IsZero() && down == 0 && answered:
			if err := l.Cut(l.Nodes[1]); err != nil {
				t.Error(err)
			}
			pulled = time.Now()
		case !pulled.IsZero() && healed.IsZero() && down == len(paths):
			if took := time.Since(pulled); took > 5*time.Second {
				t.Errorf("the pulled cable was seen after %v, want 5 s at most", took)
			}
			if err := l.Heal(l.Nodes[1]); err != nil {
				t.Error(err)
			}
			healed = time.Now()
		case !healed.IsZero() && down == 0:
			t.Logf("seen %v after the cable was pulled, and %v after it was back", healed.Sub(pulled), time.Since(healed))
			stop()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if healed.IsZero() || ctx.Err() == context.DeadlineExceeded {
		t.Errorf("pulled %v, healed %v: the paths did not go down and come back", pulled, healed)
	}
}

// TestPageOfANodeIsRelayedOutOfItsNamespace asks a daemon through a listener outside its namespace.
func TestPageOfANodeIsRelayedOutOfItsNamespace(t *testing.T) {
	const inside = "127.0.0.1:8081"
	l := upLab(t, lab.Options{Nodes: 1, Families: lab.IPv4, First: []string{"--listen-address", inside}})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Nodes[0].Relay(ctx, listener, inside) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + listener.Addr().String() + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), `"node1"`) {
		t.Errorf("%s: %v: %.200s", resp.Status, err, body)
	}
}
