package node

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/network/probe"
)

func TestMatrixHasARowOfEveryNodeAndTheReasonOfEachThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		states := []string{probe.Up, probe.Up, probe.Up, probe.Down}
		own := Report{Node: "self"}
		for i, state := range states {
			own.Peers = append(own.Peers, PeerReport{Node: "n" + string(rune('0'+i)), PublicKey: wgtypes.Key{byte(i)}.String(), State: state, Received: 7})
		}
		var asked atomic.Int32
		m := &matrixMaker{
			report: func(context.Context) Report { return own },
			ask: func(ctx context.Context, peer wgtypes.Key, question string) ([]byte, error) {
				asked.Add(1)
				switch {
				case question != "row" || states[peer[0]] == probe.Down:
					t.Errorf("%q to peer %d", question, peer[0])
				case peer[0] == 1:
					<-ctx.Done()
					return nil, ctx.Err()
				case peer[0] == 2:
					return nil, errors.New("this node does not know the question")
				}
				return json.Marshal(MatrixRow{Node: "a name that it claims", At: time.Now(), Peers: []MatrixPeer{{Node: "self", State: probe.OneWay}}})
			},
		}
		started := time.Now()
		got := m.matrix(t.Context())
		if took := time.Since(started); took > matrixLimit {
			t.Errorf("it took %v", took)
		}
		if strings.Join(got.Nodes, " ") != "n0 n1 n2 n3 self" || len(got.Rows) != 5 {
			t.Fatalf("%+v", got)
		}
		for i, want := range []string{"", "deadline", "does not know", "does not reach", ""} {
			if r := got.Rows[i]; r.Node != got.Nodes[i] || !strings.Contains(r.Error, want) || (want == "") != (r.Error == "") {
				t.Errorf("row %+v, want %q", r, want)
			}
		}
		if p := got.Rows[0].Peers; len(p) != 1 || p[0].State != probe.OneWay {
			t.Errorf("the row of n0: %+v", p)
		}
		if p := got.Rows[4].Peers; len(p) != 4 || p[3].State != probe.Down || p[0].Received != 7 {
			t.Errorf("the own row: %+v", p)
		}
		m.matrix(t.Context())
		if asked.Load() != 3 {
			t.Errorf("a copy cost questions: %d", asked.Load())
		}
		time.Sleep(matrixFresh) // fake time of synctest
		if m.matrix(t.Context()); asked.Load() != 6 {
			t.Errorf("an old copy was given out: %d questions", asked.Load())
		}
	})
}

func TestReadyNodeTellsThePathsThatFailAndStaysReady(t *testing.T) {
	rep := Report{Peers: []PeerReport{{Node: "beta", Paths: []PathReport{
		{Family: "ipv4", State: probe.Down, Reason: "no packet arrives"}, {Family: "ipv6", State: probe.Up, Reason: "its host answers"},
	}}, {Node: "gamma", Paths: []PathReport{{Family: "ipv4", State: probe.Unknown}}}}}
	if got := badPaths(rep); len(got) != 1 || got[0] != "beta over ipv4: down: no packet arrives" {
		t.Errorf("%q", got)
	}
	for range 3 * maxBadPaths {
		rep.Peers = append(rep.Peers, rep.Peers[0])
	}
	if got := badPaths(rep); len(got) != maxBadPaths+1 {
		t.Errorf("%d lines", len(got))
	}
}
