package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }

const iface = "loden0"

// running is an engine on a goroutine of the test.
type running struct {
	t     *testing.T
	said  string // its report: ready, or the reason why not
	stop  context.CancelFunc
	ended chan error
}

// start runs an engine and waits until it is ready or has failed.
func start(t *testing.T, o engine.Options) *running {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	o.Ready, o.Log = w, zerolog.New(zerolog.NewTestWriter(t))
	ctx, cancel := context.WithCancel(context.Background())
	e := &running{t: t, stop: cancel, ended: make(chan error, 1)}
	go func() { e.ended <- engine.Run(ctx, o) }()
	said, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	e.said = string(said)
	return e
}

// wait waits for Run and returns its error.
func (e *running) wait() error {
	e.t.Helper()
	select {
	case err := <-e.ended:
		return err
	case <-time.After(time.Minute):
		e.t.Fatal("the engine does not end")
		return nil
	}
}

func options(t *testing.T) engine.Options { return engine.Options{Iface: iface, RunDir: t.TempDir()} }

func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
	return string(out)
}

func exists(name string) bool { _, err := net.InterfaceByName(name); return err == nil }

func TestEngineIsConfiguredOverItsSocketAndLeavesItsDevice(t *testing.T) {
	o := options(t)
	e := start(t, o)
	if e.said != engine.ReadyLine {
		t.Fatalf("it said %q", e.said)
	}
	client, err := wgctrl.New()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.ConfigureDevice(iface, wgtypes.Config{PrivateKey: &key, ListenPort: new(51820)}); err != nil {
		t.Fatal(err)
	}
	d, err := client.Device(iface)
	if err != nil || d.PublicKey != key.PublicKey() || d.ListenPort != 51820 {
		t.Fatalf("device %+v, %v", d, err)
	}
	info, err := os.Stat(engine.SocketPath(iface))
	if err != nil || info.Mode().Perm() != 0o700 && info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", info.Mode(), err)
	}
	ip(t, "addr", "add", "10.244.1.0/32", "dev", iface)
	idle, err := net.Dial("unix", engine.SocketPath(iface)) // must not keep the engine from ending
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	e.stop()
	if err := e.wait(); err != nil {
		t.Fatal(err)
	}
	if out := ip(t, "addr", "show", "dev", iface); !strings.Contains(out, "10.244.1.0/32") {
		t.Errorf("after its engine the interface is\n%s", out)
	}

	e = start(t, o)
	if e.said != engine.ReadyLine {
		t.Fatalf("the next one said %q", e.said)
	}
	ip(t, "link", "delete", iface)
	if err := e.wait(); err != nil {
		t.Errorf("an engine whose interface was deleted says %v", err)
	}
	if _, err := os.Lstat(engine.SocketPath(iface)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its socket: %v", err)
	}
}

func TestTakenPortIsToldToWhoeverSetsIt(t *testing.T) {
	taken, err := net.ListenPacket("udp4", ":51820")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	e := start(t, options(t))
	client, err := wgctrl.New()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// The interface is down: wireguard-go by itself would say yes and bind nothing later.
	err = client.ConfigureDevice(iface, wgtypes.Config{ListenPort: new(51820)})
	if err == nil || !strings.Contains(err.Error(), "errno=-98") {
		t.Errorf("got %v", err)
	}
	ip(t, "link", "delete", iface)
	if err := e.wait(); err != nil {
		t.Error(err)
	}
}

func TestSecondEngineIsRefused(t *testing.T) {
	o := options(t)
	e := start(t, o)
	owner, is, err := engine.Running(o.RunDir, iface)
	if err != nil || !is || owner != (engine.Owner{Iface: iface, PID: os.Getpid(), Kind: engine.DefaultKind}) {
		t.Errorf("running: %+v %t %v", owner, is, err)
	}
	second := start(t, o)
	err = second.wait()
	want := fmt.Sprintf("lock engine of loden0: an engine for this interface runs already (pid %d)", os.Getpid())
	if !errors.Is(err, engine.ErrRunning) || err.Error() != want || second.said != want {
		t.Errorf("got %v, said %q", err, second.said)
	}
	elsewhere := start(t, engine.Options{Iface: iface, RunDir: t.TempDir()})
	if err := elsewhere.wait(); err == nil || !strings.Contains(err.Error(), "another WireGuard process serves this interface") {
		t.Errorf("with a lock elsewhere: %v", err)
	}
	ip(t, "link", "delete", iface)
	if err := e.wait(); err != nil {
		t.Error(err)
	}
	if _, is, err := engine.Running(o.RunDir, iface); is || err != nil {
		t.Errorf("running: %t %v", is, err)
	}
}

func TestEngineThatCannotStartLeavesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		kind    engine.Kind
		iface   string // "": the usual name
		prepare func(t *testing.T, o engine.Options)
		want    string
	}{
		"a name that the kernel would change": {
			iface: "wg%d", want: `start engine: interface name "wg%d": give 1 to 15 characters`,
		},
		"a path as a name": {iface: "../wg0", want: `start engine: interface name "../wg0": give 1 to 15 characters`},
		"unknown engine":   {kind: "magic", want: `start engine "magic": choose wireguard-go or loden`},
		"an interface of another kind": {
			prepare: func(t *testing.T, _ engine.Options) {
				ip(t, "link", "add", iface, "type", "bridge")
				t.Cleanup(func() { ip(t, "link", "delete", iface) })
			},
			want: "an interface of another kind has that name",
		},
		"no directory for the lock": {
			prepare: func(t *testing.T, o engine.Options) {
				if err := os.WriteFile(filepath.Dir(engine.LockPath(o.RunDir, iface)), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			},
			want: "not a directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := engine.Options{Iface: iface, Kind: c.kind, RunDir: filepath.Join(t.TempDir(), "run")}
			if c.iface != "" {
				o.Iface = c.iface
			}
			if c.prepare != nil {
				c.prepare(t, o)
			}
			before := exists(iface)
			e := start(t, o)
			err := e.wait()
			if err == nil || !strings.Contains(err.Error(), c.want) || e.said != err.Error() {
				t.Errorf("got %v, said %q", err, e.said)
			}
			if exists(iface) != before {
				t.Errorf("the interface exists: %t, before: %t", !before, before)
			}
			if _, err := os.Lstat(engine.SocketPath(o.Iface)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket: %v", err)
			}
			if left := ip(t, "-o", "link", "show", "type", "tun"); left != "" {
				t.Errorf("a TUN device is left: %s", left)
			}
		})
	}
}

func TestSocketOfAKilledEngineIsReplaced(t *testing.T) {
	if err := os.MkdirAll(filepath.Dir(engine.SocketPath(iface)), 0o755); err != nil {
		t.Fatal(err)
	}
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: engine.SocketPath(iface), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	_ = stale.Close()
	e := start(t, options(t))
	if e.said != engine.ReadyLine {
		t.Errorf("it said %q", e.said)
	}
	ip(t, "link", "delete", iface)
	if err := e.wait(); err != nil {
		t.Error(err)
	}
}

func TestEngineTellsItsStatus(t *testing.T) {
	for kind, want := range map[engine.Kind]map[string]string{
		engine.Loden:       {"tun-rx": "off", "tun-tx": "off", "udp-rx": "on", "udp-tx": "off"},
		engine.WireGuardGo: nil,
	} {
		t.Run(string(kind), func(t *testing.T) {
			o := options(t)
			o.Kind = kind
			if kind == engine.Loden {
				var err error
				if o.NoOffload, err = engine.ParseOffloads("tun-rx,udp-tx, tun-tx"); err != nil {
					t.Fatal(err)
				}
			}
			e := start(t, o)
			got, err := engine.ReadStatus(t.Context(), o.RunDir, iface)
			if err != nil || got.Kind != kind || got.PID != os.Getpid() || !maps.Equal(got.Offloads, want) || len(got.Drops) != 0 {
				t.Errorf("status %+v, %v", got, err)
			}
			ip(t, "link", "delete", iface)
			if err := e.wait(); err != nil {
				t.Error(err)
			}
			if _, err := engine.ReadStatus(t.Context(), o.RunDir, iface); err == nil {
				t.Error("an engine that has ended tells its status")
			}
		})
	}
}

func TestStatusOfAnEngineThatHangsEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: engine.ControlPath(dir, iface), Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := engine.ReadStatus(ctx, dir, iface); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
}

func TestUnknownOffloadIsOneClearLine(t *testing.T) {
	_, err := engine.ParseOffloads("tun-rx,gso")
	if want := `offload "gso": choose among tun-rx, tun-tx, udp-rx and udp-tx, separated by commas`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
