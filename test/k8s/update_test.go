//go:build k8s

package k8s

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

const (
	streamRate = 100 // packets per second
	// mostLost is what a stream may lose while the nodes' data paths change hands: 50 ms for
	// each of the two. Without a surge the engine goes before its successor comes, and what
	// that costs is reported.
	mostLost = 2 * streamRate / 20
)

// isUpdated changes the image of the DaemonSet while pods stream, by both families.
func (c *cluster) isUpdated(t *testing.T, pods []pod) {
	before := c.daemons(t)
	streams := make([]*stream, 0, 2)
	for _, ip := range pods[1].ips {
		streams = append(streams, pods[0].stream(t, ip))
	}
	flowing(t, pods) // and so are the streams
	began := time.Now()
	// A job's template is immutable; it goes by itself ten minutes after its end.
	c.kubectl(t, "-n", "loden-system", "delete", "job", "loden-network", "--ignore-not-found")
	c.kubectl(t, "apply", "-k", manifests("upgrade"))
	c.kubectl(t, "-n", "loden-system", "rollout", "status", "daemonset/loden", "--timeout=180s")
	t.Logf("rolled out in %v", time.Since(began).Round(100*time.Millisecond))
	flowing(t, pods)
	surge := c.kubectl(t, "-n", "loden-system", "get", "daemonset", "loden", "-o", "jsonpath={.spec.updateStrategy.rollingUpdate.maxSurge}")
	for _, s := range streams {
		f, err := s.end()
		if err != nil {
			t.Error(err)
			continue
		}
		t.Logf("maxSurge %s: stream to %s: %d sent, %d lost, longest pause %v", surge, s.to, f.Sent, f.Lost, f.Pause.Round(time.Millisecond))
		if f.Sent < streamRate || f.Lost == f.Sent {
			t.Errorf("stream to %s: %+v, no stream", s.to, f)
		}
		if surge != "0" && f.Lost > mostLost {
			t.Errorf("stream to %s lost %d packets though the DaemonSet surges, want %d at most", s.to, f.Lost, mostLost)
		}
	}
	c.changed(t, before)
	c.kubectl(t, "wait", "node", "--all", "--for=condition=Ready", "--timeout=60s")
	reachEachOther(t, pods)
}

// flowing waits until a ping is answered by each family.
func flowing(t *testing.T, pods []pod) {
	t.Helper()
	for _, ip := range pods[1].ips {
		sandboxtest.Until(t, 60*time.Second, "ping "+ip, func() error { return pods[0].ping(ip, 5) })
	}
}

// daemons returns Loden's pods with the images they run.
func (c *cluster) daemons(t *testing.T) map[string]string {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name, DeletionTimestamp string }
			Spec     struct{ Containers, InitContainers []struct{ Image string } }
		}
	}
	c.read(t, &list, "-n", "loden-system", "get", "pods", "-l", "app.kubernetes.io/component=node")
	all := map[string]string{}
	for _, is := range list.Items {
		for _, container := range append(is.Spec.Containers, is.Spec.InitContainers...) {
			if is.Metadata.DeletionTimestamp == "" {
				all[is.Metadata.Name] += container.Image + " "
			}
		}
	}
	return all
}

// changed wants each node's pod to be another, of the new image.
func (c *cluster) changed(t *testing.T, before map[string]string) {
	t.Helper()
	after := c.daemons(t)
	if len(after) != len(c.nodes) {
		t.Errorf("Loden's pods are %v, want one on each node", after)
	}
	for name, images := range after {
		if before[name] != "" || !strings.Contains(images, "localhost/loden:2") || strings.Contains(images, "localhost/loden:1") {
			t.Errorf("%s runs %s, want a new pod of the new image", name, images)
		}
	}
}

// stream is a flow of numbered packets out of a pod.
type stream struct {
	to          string
	cmd         *exec.Cmd
	in          io.Closer
	out, errOut strings.Builder
	over        bool
}

// flow is the pod's account of the stream at its end.
type flow struct {
	Sent, Lost int
	Pause      time.Duration
}

// stream starts a stream. kubectl reaches the pod over the nodes' network, not over Loden.
func (p pod) stream(t *testing.T, to string) *stream {
	t.Helper()
	s := &stream{to: to, cmd: p.c.command("exec", "-i", p.name, "--", "/bin/pod", "stream", to, fmt.Sprint(streamRate))}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.errOut
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in = in
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !s.over {
			_, _ = s.end() // the test has failed already
		}
	})
	return s
}

// end ends the stream and returns its account.
func (s *stream) end() (flow, error) {
	s.over = true
	kill := time.AfterFunc(30*time.Second, func() { _ = s.cmd.Process.Kill() }) // it waits for the packets under way, not longer
	defer kill.Stop()
	err := errors.Join(s.in.Close(), s.cmd.Wait())
	var f flow
	if err == nil {
		err = json.Unmarshal([]byte(s.out.String()), &f)
	}
	if err != nil {
		err = fmt.Errorf("stream to %s: %w: %s%s", s.to, err, s.out.String(), s.errOut.String())
	}
	return f, err
}
