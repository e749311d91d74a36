package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Matrix is the paths between all nodes, as each node reports them: the body of GET /matrix.
type Matrix struct {
	APIVersion int         `json:"apiVersion"`
	At         time.Time   `json:"at"`
	Nodes      []string    `json:"nodes"`
	Rows       []MatrixRow `json:"rows"`
}

// MatrixRow is the view of a node.
type MatrixRow struct {
	Node  string       `json:"node"`
	At    time.Time    `json:"at,omitzero"`     // by that node's clock
	Error string       `json:"error,omitempty"` // why the node told no view
	Peers []MatrixPeer `json:"peers"`
}

// MatrixPeer is the path from a row's node to another node.
type MatrixPeer struct {
	Node  string       `json:"node"`
	State string       `json:"state"`
	Paths []PathReport `json:"paths,omitempty"`

	Received int64 `json:"receivedBytes,omitzero"` // as in PeerReport; two answers give a rate
	Sent     int64 `json:"sentBytes,omitzero"`
}

// AskMatrix asks the daemon of this node for the paths between all nodes. Errors: ErrNoDaemon.
func AskMatrix(ctx context.Context, runDir string) (Matrix, error) {
	var m Matrix
	resp, err := request(ctx, runDir, http.MethodGet, "/matrix")
	if err != nil {
		return m, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return m, errors.New("the daemon knows no matrix: restart `loden run` with this version")
	}
	if err := json.NewDecoder(resp.Body).Decode(&m); err != nil {
		return m, fmt.Errorf("read matrix: %w", err)
	}
	return m, nil
}
