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
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// socketPath returns the path of the socket at which a running node answers.
func socketPath(runDir string) string { return filepath.Join(runDir, "loden.sock") }

// api answers questions about a running node. It changes the node in a single case, which
// only the unix socket offers: the operator confirms a held mass removal.
type api struct {
	report  func(context.Context) Report
	metrics http.Handler
	confirm func() // releases a held mass removal
	why     func(ctx context.Context, from, to string) (Explanation, error)
	views   func(context.Context) []PeerView
	matrix  *matrixMaker
	browser browser
}

// reading returns the handler of the requests that change nothing. Profiles of the process
// (pprof) are served on no listener.
func (a api) reading() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "loden is running")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		rep := a.report(r.Context())
		if !rep.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, rep.Reason)
			return
		}
		fmt.Fprintln(w, "loden is ready")
		for _, line := range badPaths(rep) { // a peer makes no node unready
			fmt.Fprintln(w, line)
		}
	})
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(a.report(r.Context())) // an error says that the client went away
	})
	mux.Handle("GET /metrics", a.metrics)
	mux.HandleFunc("GET /matrix", a.matrix.serve)
	a.browser.register(mux)
	return mux
}

// local returns the handler of the unix socket, which only root can open.
func (a api) local() *http.ServeMux {
	mux := a.reading()
	mux.HandleFunc("POST /removals/confirm", func(w http.ResponseWriter, _ *http.Request) {
		a.confirm()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /why", a.serveWhy)
	mux.HandleFunc("POST /views", a.serveViews)
	return mux
}

// listeners opens the unix socket, mode 0600, and the TCP address if there is an address.
// The caller holds the lock of the run directory, so a socket file there has no owner.
func listeners(runDir, address string) (local net.Listener, tcp net.Listener, err error) {
	if address != "" {
		if tcp, err = net.Listen("tcp", loopbackByDefault(address)); err != nil {
			return nil, nil, fmt.Errorf("listen on --listen-address %s: %w: choose a free address", address, err)
		}
		tcp = limitConnections(tcp)
	}
	path := socketPath(runDir)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, errors.Join(fmt.Errorf("remove old socket: %w", err), closeIf(tcp))
	}
	closed := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		// bind(2) makes the file with the mode that the socket has then (net/unix/af_unix.c,
		// unix_bind_bsd), so there is no moment at which another user can connect.
		var failed error
		err := c.Control(func(fd uintptr) { failed = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
	if local, err = closed.Listen(context.Background(), "unix", path); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), closeIf(tcp))
	}
	return local, tcp, nil
}

func closeIf(l net.Listener) error {
	if l == nil {
		return nil
	}
	return l.Close()
}

// loopbackByDefault turns ":9100" into "127.0.0.1:9100": other hosts can read a node's
// report only when the operator names an address.
func loopbackByDefault(address string) string {
	if strings.HasPrefix(address, ":") {
		return "127.0.0.1" + address
	}
	return address
}

// serve answers on the listeners until ctx ends, and closes them. tcp may be nil.
func (a api) serve(ctx context.Context, local, tcp net.Listener) error {
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, a.browser.live.End)()
	g.Go(func() error { return serveOn(ctx, local, a.local()) })
	if tcp != nil {
		g.Go(func() error { return serveOn(ctx, tcp, a.browser.names.protect(a.reading())) })
	}
	return g.Wait()
}

// The bounds of a connection: a client that sends or reads slowly loses it. The answers are
// made within a second, and are at most some hundred KiB long.
const (
	readTime   = 5 * time.Second  // for a request
	writeTime  = 10 * time.Second // for a request and its answer
	idleTime   = 30 * time.Second // between two requests
	maxHeader  = 16 << 10         // bytes of a request's header
	closingFor = 2 * time.Second  // for answers that are under way when the node ends
)

func serveOn(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler: h, ReadTimeout: readTime, WriteTimeout: writeTime, IdleTimeout: idleTime, MaxHeaderBytes: maxHeader,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), closingFor)
	defer cancel()
	err := server.Shutdown(limit)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close()
	}
	<-ended
	return err
}
