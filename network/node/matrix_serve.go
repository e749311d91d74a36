package node

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/network/probe"
)

// The bounds of a matrix.
const (
	matrixLimit    = 2 * time.Second // for the rows of all peers
	matrixParallel = 16              // peers that are asked at a time
	matrixRows     = 256             // peers that are asked at most
	matrixSmall    = 20              // nodes up to which a copy is given out for matrixFresh only

	matrixFresh      = 2 * time.Second  // age up to which a copy is given out
	matrixFreshLarge = 10 * time.Second // and for more nodes than matrixSmall
)

// matrixMaker makes the matrix of all nodes from their own views. Its methods may be called
// from several goroutines.
type matrixMaker struct {
	report func(context.Context) Report
	ask    func(ctx context.Context, peer wgtypes.Key, question string) ([]byte, error)

	flight singleflight.Group
	mu     sync.Mutex // guards last
	last   Matrix
}

// rowOf returns the row of a matrix that a node's own report gives.
func rowOf(r Report, at time.Time) MatrixRow {
	row := MatrixRow{Node: r.Node, At: at, Peers: make([]MatrixPeer, 0, len(r.Peers))}
	for _, p := range r.Peers {
		row.Peers = append(row.Peers, MatrixPeer{Node: peerTitle(p), State: p.State, Paths: p.Paths, Received: p.Received, Sent: p.Sent})
	}
	return row
}

// ownRow answers the question "row": this node's row of the matrix, as JSON.
func (n *node) ownRow(ctx context.Context, _ wgtypes.Key, _ string) ([]byte, error) {
	return json.Marshal(rowOf(n.reporter.report(ctx), time.Now()))
}

// serve answers GET /matrix. Requests at the same time share a matrix, and requests soon
// after get a copy.
func (m *matrixMaker) serve(w http.ResponseWriter, r *http.Request) {
	shared, _, _ := m.flight.Do("matrix", func() (any, error) { return m.matrix(context.WithoutCancel(r.Context())), nil })
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(shared) // an error says that the client went away
}

// matrix returns the copy of the matrix, or makes a new matrix when the copy is old.
func (m *matrixMaker) matrix(ctx context.Context) Matrix {
	m.mu.Lock()
	last := m.last
	m.mu.Unlock()
	fresh := matrixFresh
	if len(last.Nodes) > matrixSmall {
		fresh = matrixFreshLarge
	}
	if time.Since(last.At) < fresh {
		return last
	}
	next := m.compose(ctx)
	m.mu.Lock()
	m.last = next
	m.mu.Unlock()
	return next
}

// compose asks every peer for its row. The row of a peer that does not answer holds the
// reason.
func (m *matrixMaker) compose(ctx context.Context) Matrix {
	ctx, cancel := context.WithTimeout(ctx, matrixLimit)
	defer cancel()
	own := m.report(ctx)
	rows := make([]MatrixRow, len(own.Peers))
	var g errgroup.Group
	g.SetLimit(matrixParallel)
	for i, p := range own.Peers {
		g.Go(func() error {
			rows[i] = m.row(ctx, p, i >= matrixRows)
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
	out := Matrix{APIVersion: apiVersion, At: time.Now(), Rows: append(rows, rowOf(own, time.Now()))}
	slices.SortFunc(out.Rows, func(a, b MatrixRow) int { return strings.Compare(a.Node, b.Node) })
	for _, r := range out.Rows {
		out.Nodes = append(out.Nodes, r.Node)
	}
	return out
}

// row asks a peer for its row. Peers that cannot answer are not asked, so that they take no time
// from the others.
func (m *matrixMaker) row(ctx context.Context, p PeerReport, beyond bool) MatrixRow {
	row := MatrixRow{Node: peerTitle(p), Peers: []MatrixPeer{}}
	key, err := wgtypes.ParseKey(p.PublicKey)
	switch {
	case beyond:
		row.Error = "a matrix has the rows of 256 peers at most"
	case err != nil:
		row.Error = err.Error()
	case p.State == probe.Down || p.State == probe.OneWay:
		row.Error = "this node does not reach it"
	}
	if row.Error != "" {
		return row
	}
	data, err := m.ask(ctx, key, "row")
	if err == nil {
		var answer MatrixRow
		if err = json.Unmarshal(data, &answer); err == nil {
			row.At, row.Peers = answer.At, answer.Peers
			return row
		}
	}
	row.Error = oneLine(err.Error())
	return row
}
