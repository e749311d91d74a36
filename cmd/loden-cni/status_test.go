package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

// readyz serves a fixed answer to /readyz on the daemon's socket until the returned function is
// called.
func (n *node) readyz(t *testing.T, code int, body string) (stop func()) {
	t.Helper()
	listener, err := net.Listen("unix", n.Path("/run/loden/loden.sock"))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			code, body = http.StatusNotFound, "no such page"
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body+"\n")
	})}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	return func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}
}

// status fails the test unless STATUS gives the code (0 is success) and says text.
func (n *node) status(t *testing.T, when string, code uint, text string) {
	t.Helper()
	err := n.cni.GetStatusNetworkList(t.Context(), n.list)
	if err == nil && code == 0 {
		return
	}
	r, ok := errors.AsType[*refusal](err)
	if !ok || r.code != code || !strings.Contains(r.text, text) {
		t.Errorf("%s: STATUS says %v, want code %d and %q", when, err, code, text)
	}
}

func TestStatusFollowsTheDaemonAndThenThePath(t *testing.T) {
	t.Parallel()
	const notAvailable, limited = types.ErrPluginNotAvailable, types.ErrLimitedConnectivity
	n := newNode(t, families[0].env, conflist("1.1.0", ""))
	env := n.Path("/run/flannel/subnet.env")
	if err := os.Remove(env); err != nil {
		t.Fatal(err)
	}
	n.status(t, "nothing is there", notAvailable, "subnet.env does not exist yet")
	stop := n.readyz(t, 503, "waiting for a lease: etcd does not answer")
	n.status(t, "the daemon waits", notAvailable, "waiting for a lease")
	stop()

	n.write(t, families[0].env)
	stop = n.readyz(t, 200, "ready")
	n.status(t, "the daemon is ready", 0, "")
	stop()
	stop = n.readyz(t, 503, "the subnet is held by another node")
	n.status(t, "the daemon was ready once", limited, "held by another node")
	stop()

	n.status(t, "the daemon and its interface are away", limited, "interface loden0 does not exist")
	n.ip(t, "link add loden0 type veth peer name other")
	n.status(t, "the interface is down", limited, "interface loden0 is down")
	n.ip(t, "link set loden0 up")
	n.status(t, "the engine is gone", limited, "no carrier")
	n.ip(t, "link set other up")
	n.status(t, "the daemon is away and the path stands", 0, "")

	silent, err := net.Listen("unix", n.Path("/run/loden/loden.sock"))
	if err != nil {
		t.Fatal(err)
	}
	n.status(t, "the daemon hangs and the path stands", 0, "")
	n.ip(t, "link set loden0 down")
	n.status(t, "the daemon hangs", limited, "does not answer")
	if err := silent.Close(); err != nil {
		t.Error(err)
	}
}

// ip runs ip(8) on the node.
func (n *node) ip(t *testing.T, words string) {
	t.Helper()
	if err := n.Run("ip", strings.Fields(words)...); err != nil {
		t.Fatal(err)
	}
}

func TestStatusAsksTheDelegateToo(t *testing.T) {
	t.Parallel()
	n := newNode(t, families[0].env, conflist("1.1.0", `,"delegate":{"type":"tired"}`))
	n.script(t, "tired", fmt.Sprintf(`echo '{"cniVersion":"1.1.0","code":%d,"msg":"tired"}'; exit 1`, types.ErrPluginNotAvailable))
	stop := n.readyz(t, 200, "ready")
	defer stop()
	n.status(t, "the delegate is not ready", types.ErrPluginNotAvailable, "tired")
}
