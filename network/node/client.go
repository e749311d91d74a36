package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// ErrNoDaemon says that no daemon answers on this node.
var ErrNoDaemon = errors.New("no daemon answers")

// askLimit bounds a question to the node's own daemon.
const askLimit = 5 * time.Second

// Ask reads the report of the daemon that runs on this node. Errors: ErrNoDaemon.
func Ask(ctx context.Context, runDir string) (Report, error) {
	var rep Report
	resp, err := request(ctx, runDir, http.MethodGet, "/status")
	if err != nil {
		return rep, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&rep); err != nil {
		return rep, fmt.Errorf("read status: %w", err)
	}
	return rep, nil
}

// request speaks HTTP with the daemon over its socket. The caller closes the body.
func request(ctx context.Context, runDir, method, path string) (*http.Response, error) {
	client := http.Client{Timeout: askLimit, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socketPath(runDir))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://loden"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w at %s: start `loden run`, or give its --run-dir", ErrNoDaemon, socketPath(runDir))
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w: %s is for root: use sudo", ErrNoDaemon, socketPath(runDir))
	case err != nil:
		return nil, fmt.Errorf("%w at %s in time: %w", ErrNoDaemon, socketPath(runDir), err)
	}
	return resp, nil
}

// Confirm lets a held mass removal go at once on this node. Errors: ErrNoDaemon.
func Confirm(ctx context.Context, runDir string) error {
	resp, err := request(ctx, runDir, http.MethodPost, "/removals/confirm")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // a text for people, whole or not
		return fmt.Errorf("confirm removals: %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	return nil
}

// oneLine joins the lines of a joined error, so that a table and a script see one line.
func oneLine(s string) string { return strings.Join(strings.Split(strings.TrimSpace(s), "\n"), "; ") }
