package history_test

import (
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/network/node/history"
)

var start = time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)

// sample is a sample of an IPv4 path that says its number everywhere.
func sample(peer string, n float64) history.Sample {
	return history.Sample{
		Peer: peer, Received: n, Sent: 2 * n, Handshake: n,
		Paths: opt.Dual[history.Probe]{V4: opt.Some(history.Probe{RTT50: n / 1e3, RTT99: n / 1e2, Loss: 0})},
	}
}

// near reports whether a number is as exact as the scale promises.
func near(got history.Number, want float64) bool {
	if math.IsNaN(want) || math.IsNaN(float64(got)) {
		return math.IsNaN(want) && math.IsNaN(float64(got))
	}
	return math.Abs(float64(got)-want) <= want*0.0004
}

// The model is a list of all moments; the history is its last hour.
func TestSamplesAreTheLastHourOfEachPeer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		samples := history.NewSamples()
		var model []map[string]float64
		peers := []string{"a", "b", "c"}
		for i := range rapid.IntRange(1, 800).Draw(t, "moments") {
			present := rapid.IntRange(0, 7).Draw(t, "present")
			moment, add := map[string]float64{}, []history.Sample(nil)
			for j, p := range peers {
				if present&(1<<j) != 0 {
					moment[p] = float64(i + 1)
					add = append(add, sample(p, float64(i+1)))
				}
			}
			samples.Add(start.Add(time.Duration(i)*10*time.Second), add)
			model = append(model, moment)
		}
		model = model[max(0, len(model)-360):]
		for _, p := range peers {
			seen := false
			for _, m := range model {
				_, here := m[p]
				seen = seen || here
			}
			got, ok := samples.Of(p)
			if ok != seen {
				t.Fatalf("%s is there: %v, want %v", p, ok, seen)
			}
			if !ok {
				continue
			}
			if len(got.Times) != len(model) || len(got.Received) != len(model) {
				t.Fatalf("%d moments, %d numbers, want %d", len(got.Times), len(got.Received), len(model))
			}
			for i, m := range model {
				want, here := m[p]
				if !here {
					want = math.NaN()
				}
				if !near(got.Received[i], want) || !near(got.Sent[i], 2*want) || !near(got.Paths.V4.Or(history.PathSeries{}).RTT99[i], want/1e2) {
					t.Fatalf("moment %d of %s: %v, want %v", i, p, got.Received[i], want)
				}
			}
		}
	})
}

func TestAFamilyWithoutProbesIsAbsent(t *testing.T) {
	samples := history.NewSamples()
	samples.Add(start, []history.Sample{sample("a", 1)})
	got, _ := samples.Of("a")
	if !got.Paths.V4.Present() || got.Paths.V6.Present() {
		t.Errorf("got %+v", got.Paths)
	}
	if text, err := json.Marshal(got); err != nil || !strings.Contains(string(text), `"receivedBytesPerSecond":[1]`) {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestAnUnknownNumberIsNullInJSON(t *testing.T) {
	samples := history.NewSamples()
	samples.Add(start, []history.Sample{{Peer: "a", Received: math.NaN(), Sent: 3, Handshake: -1}})
	got, _ := samples.Of("a")
	text, err := json.Marshal(got)
	if err != nil || !strings.Contains(string(text), `"receivedBytesPerSecond":[null],"sentBytesPerSecond":[3],"handshakeAgeSeconds":[null]`) {
		t.Errorf("got %s, %v", text, err)
	}
}

func TestManyPeersAreKeptInLongerStepsAndBoundedMemory(t *testing.T) {
	samples := history.NewSamples()
	moment := func(i, peers int) {
		var add []history.Sample
		for p := range peers {
			add = append(add, sample(fmt.Sprint(p), float64(i)))
		}
		samples.Add(start.Add(time.Duration(i)*samples.Step()), add)
	}
	for i := range 100 {
		moment(i, 10)
	}
	before := heap()
	for i := range 100 {
		moment(i+100, 12_000)
	}
	if got := samples.Step(); got != time.Minute {
		t.Errorf("the step is %v", got)
	}
	got, _ := samples.Of("0")
	if len(got.Times) != 60 || got.Step != 60 {
		t.Errorf("%d moments in steps of %d s", len(got.Times), got.Step)
	}
	if _, ok := samples.Of("11999"); ok {
		t.Error("more than 10,000 peers are kept")
	}
	if used := heap() - before; used > 24<<20 {
		t.Errorf("the history of 10,000 peers takes %d KiB", used>>10)
	} else {
		t.Logf("the history of 10,000 peers takes %d KiB", used>>10)
	}
	runtime.KeepAlive(samples)
}

// heap returns the bytes that are reachable.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// The times of a history rise always, so a clock that was set back ends it.
func TestAClockThatWasSetBackBeginsTheHistoryAnew(t *testing.T) {
	samples := history.NewSamples()
	for _, at := range []time.Time{start, start, start.Add(time.Minute), start.Add(-time.Hour)} {
		samples.Add(at, []history.Sample{sample("a", 1)})
		if got, _ := samples.Of("a"); got.Times[len(got.Times)-1] != at.Unix() {
			t.Errorf("after %v: %v", at, got.Times)
		}
	}
	if got, _ := samples.Of("a"); len(got.Times) != 1 {
		t.Errorf("%d moments", len(got.Times))
	}
}
