package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// socketFile is where the daemon answers.
const socketFile = "/run/loden/loden.sock"

// Serving waits until the daemon that was started last says that it is ready: its first
// pass is complete.
func (n *Node) Serving(ctx context.Context) error {
	return until(ctx, n.daemon, n.Name+" to be ready", func() error {
		code, said, err := n.Ask(ctx, "/readyz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("readyz: %d %s", code, strings.TrimSpace(said))
		}
		return err
	})
}

// Ask gets a path from the daemon's own socket and returns the status code and the body.
func (n *Node) Ask(ctx context.Context, path string) (int, string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", n.Path(socketFile))
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://loden"+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}
