package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// lostHost is a directory of records and a directory of network namespaces, and the DELs that ran.
type lostHost struct {
	*lostPods
	t          *testing.T
	namespaces string
	ran        []string
	fault      error
}

func newLostHost(t *testing.T) *lostHost {
	t.Helper()
	dir := t.TempDir()
	h := &lostHost{t: t, namespaces: filepath.Join(dir, "netns")}
	h.lostPods = newLostPods(cniInstall{confDir: filepath.Join(dir, "net.d"), binDir: "/opt/cni/bin", conf: conflist{SubnetFile: "/run/subnet.env"}}, zerolog.New(zerolog.NewTestWriter(t)))
	h.records = filepath.Join(dir, "records")
	h.lostPods.exec = func(_ context.Context, plugin string, variables []string, input []byte) error {
		h.ran = append(h.ran, filepath.Base(plugin)+" "+strings.Join(variables[:4], " "))
		if !strings.Contains(string(input), `"name":"loden"`) || !strings.Contains(string(input), `"cniVersion":"1.0.0"`) {
			t.Errorf("%s was given %s", plugin, input)
		}
		if strings.HasSuffix(plugin, "portmap") && !strings.Contains(string(input), `"hostPort":`) {
			t.Errorf("%s was given no port: %s", plugin, input)
		}
		if h.fault == nil && strings.HasSuffix(plugin, ownPlugin) { // the plugin removes its record
			id, _ := strings.CutPrefix(variables[1], "CNI_CONTAINERID=")
			return os.Remove(filepath.Join(h.records, id+"@eth0"))
		}
		return h.fault
	}
	return h
}

// attach writes the record of a pod with a network namespace at a path.
func (h *lostHost) attach(id, netns string) {
	h.t.Helper()
	if err := errors.Join(os.MkdirAll(h.records, 0o755), os.WriteFile(filepath.Join(h.records, id), fmt.Appendf(nil, `{"plugin":"bridge","netns":%q}`, netns), 0o600)); err != nil {
		h.t.Fatal(err)
	}
}

// look looks at the records once and returns the plugins that ran.
func (h *lostHost) look() []string {
	h.ran = nil
	if err := h.collect(h.t.Context()); !errors.Is(err, h.fault) {
		h.t.Errorf("error %v, want %v", err, h.fault)
	}
	return h.ran
}

func TestPodWhoseNamespaceIsGoneIsDetachedAtTheSecondLook(t *testing.T) {
	h := newLostHost(t)
	if ran := h.look(); len(ran) > 0 { // no pod was ever attached
		t.Errorf("ran %v", ran)
	}
	alive := filepath.Join(h.namespaces, "cni-alive")
	if err := errors.Join(os.MkdirAll(h.namespaces, 0o755), os.WriteFile(alive, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	h.attach("alive@eth0", alive)
	h.attach("lost@eth0", filepath.Join(h.namespaces, "cni-lost"))
	if ran := h.look(); len(ran) > 0 {
		t.Errorf("at the first look: ran %v, and the runtime has not had its time", ran)
	}
	del := " CNI_COMMAND=DEL CNI_CONTAINERID=lost CNI_NETNS= CNI_IFNAME=eth0"
	want := []string{"portmap" + del, "loden-cni" + del}
	h.fault = errors.New("the disk is full")
	if ran := h.look(); !slices.Equal(ran, want) {
		t.Errorf("with a fault: ran %v, want %v", ran, want)
	}
	h.fault = nil
	if ran := h.look(); !slices.Equal(ran, want) {
		t.Errorf("after the fault: ran %v, want %v", ran, want)
	}
	if ran := h.look(); len(ran) > 0 {
		t.Errorf("again: ran %v", ran)
	}
	if _, err := os.Stat(filepath.Join(h.records, "alive@eth0")); err != nil {
		t.Error(err)
	}
}

// TestPodThatMayLiveIsLeftAlone: to take the address of a living pod is worse than to keep the address
// of a lost pod.
func TestPodThatMayLiveIsLeftAlone(t *testing.T) {
	h := newLostHost(t)
	h.attach("unseen@eth0", filepath.Join(h.namespaces, "cni-a")) // in a container without the host's directory
	h.attach("process@eth0", "/proc/4000000/ns/net")
	h.attach("relative@eth0", "cni-b")
	h.attach("empty@eth0", "")
	h.attach(".record1", filepath.Join(t.TempDir(), "gone")) // of an ADD that is under way
	h.attach("other", filepath.Join(t.TempDir(), "gone"))    // no record
	if err := os.WriteFile(filepath.Join(h.records, "garbled@eth0"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if ran := h.look(); len(ran) > 0 {
			t.Errorf("ran %v", ran)
		}
	}
}

func TestLostPodsAreLookedForUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newLostHost(t)
		if err := os.MkdirAll(h.namespaces, 0o755); err != nil {
			t.Fatal(err)
		}
		h.attach("lost@eth0", filepath.Join(h.namespaces, "cni-lost"))
		ctx, cancel := context.WithCancel(t.Context())
		ticks, stop := ticker(collectEvery)
		defer stop()
		done := make(chan error)
		go func() { done <- h.Run(ctx, ticks) }()
		time.Sleep(collectEvery + time.Second)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil || len(h.ran) != 2 {
			t.Errorf("ran %v, %v", h.ran, err)
		}
	})
}
