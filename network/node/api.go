package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// socketPath is where a running node answers.
func socketPath(runDir string) string { return filepath.Join(runDir, "loden.sock") }

// api answers questions about a running node. It changes nothing, with one exception that
// only the unix socket has: confirming a held mass removal.
type api struct {
	report  func(context.Context) Report
	metrics http.Handler
	confirm func() // lets a held mass removal go
}

// reading returns the handler that every listener has.
func (a api) reading() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "loden is running")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if rep := a.report(r.Context()); !rep.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, rep.Reason)
			return
		}
		fmt.Fprintln(w, "loden is ready")
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.report(r.Context())) // the client went away
	})
	mux.Handle("GET /metrics", a.metrics)
	return mux
}

// local returns the handler of the unix socket, which only root can open.
func (a api) local() *http.ServeMux {
	mux := a.reading()
	mux.HandleFunc("POST /removals/confirm", func(w http.ResponseWriter, _ *http.Request) {
		a.confirm()
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

// listeners opens the unix socket, mode 0600, and the TCP address if there is one. The
// caller holds the run directory's lock, so a socket file found there is a dead one.
func listeners(runDir, address string) (unix net.Listener, tcp net.Listener, err error) {
	if address != "" {
		if tcp, err = net.Listen("tcp", loopbackByDefault(address)); err != nil {
			return nil, nil, fmt.Errorf("listen on --listen-address %s: %w: choose a free one", address, err)
		}
	}
	path := socketPath(runDir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, errors.Join(fmt.Errorf("remove old socket: %w", err), closeIf(tcp))
	}
	if unix, err = net.Listen("unix", path); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), closeIf(tcp))
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, nil, errors.Join(err, unix.Close(), closeIf(tcp))
	}
	return unix, tcp, nil
}

func closeIf(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}

// loopbackByDefault turns ":9100" into "127.0.0.1:9100": what a node knows of its peers is
// for the network only when somebody says so.
func loopbackByDefault(address string) string {
	if strings.HasPrefix(address, ":") {
		return "127.0.0.1" + address
	}
	return address
}

// serve answers on the listeners until ctx ends, and closes them. tcp may be nil.
func (a api) serve(ctx context.Context, unix, tcp net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveOn(ctx, unix, a.local()) })
	if tcp != nil {
		g.Go(func() error { return serveOn(ctx, tcp, a.reading()) })
	}
	return g.Wait()
}

// closing is how long answers that are under way may take when the daemon ends.
const closing = 2 * time.Second

func serveOn(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), closing)
	defer cancel()
	err := server.Shutdown(limit)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	<-ended
	return err
}
