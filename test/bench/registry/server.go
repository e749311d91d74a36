package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// server is an etcd in a process of its own, which can be killed and started again on its data.
type server struct {
	program, dir string
	client, peer string // URLs
	cmd          *exec.Cmd
}

// newServer makes a server; start starts it.
func newServer(program string) (*server, error) {
	dir, err := os.MkdirTemp("", "loden-bench-etcd-")
	if err != nil {
		return nil, err
	}
	s := &server{program: program, dir: dir}
	for _, url := range []*string{&s.client, &s.peer} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		*url = "http://" + l.Addr().String()
		_ = l.Close() // the port stays free for a moment
	}
	return s, nil
}

// start starts etcd, with a log in its directory, and waits until it serves. Its data is synced to
// disk as in production.
func (s *server) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(s.program, "--data-dir", filepath.Join(s.dir, "data"), "--log-level", "error",
		"--listen-client-urls", s.client, "--advertise-client-urls", s.client,
		"--listen-peer-urls", s.peer, "--initial-advertise-peer-urls", s.peer, "--initial-cluster", "default="+s.peer)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start etcd: %w (make tools builds bin/etcd)", err)
	}
	for ctx.Err() == nil {
		if resp, err := http.Get(s.client + "/health"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		pause(ctx, 20*time.Millisecond)
	}
	return ctx.Err()
}

// kill ends etcd as a crash does.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait() // it reports the kill
	}
}

func (s *server) close() {
	s.kill()
	_ = os.RemoveAll(s.dir)
}

// dial returns a client of etcd's own; the caller closes it.
func (s *server) dial() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{s.client}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
}

// load is what etcd has had to do since its start.
type load struct {
	requests       map[string]float64 // by method
	received, sent float64            // bytes from and to clients
	events         float64            // sent to watchers
	cpu            float64            // seconds
	peak           float64            // resident set at its largest, MB
}

// load reads etcd's own counters.
func (s *server) load() load {
	out := load{requests: map[string]float64{}}
	resp, err := http.Get(s.client + "/metrics")
	if err != nil {
		return out
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(io.LimitReader(resp.Body, 16<<20)); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		n, _ := strconv.ParseFloat(value, 64)
		switch {
		case strings.HasPrefix(name, "grpc_server_started_total{"):
			_, method, _ := strings.Cut(name, `grpc_method="`)
			method, _, _ = strings.Cut(method, `"`)
			out.requests[method] += n
		case name == "etcd_network_client_grpc_received_bytes_total":
			out.received = n
		case name == "etcd_network_client_grpc_sent_bytes_total":
			out.sent = n
		case name == "etcd_debugging_mvcc_events_total":
			out.events = n
		case name == "process_cpu_seconds_total":
			out.cpu = n
		}
	}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid)); err == nil {
		_, after, _ := strings.Cut(string(text), "VmHWM:")
		n, _ := strconv.ParseFloat(strings.Fields(after + " 0")[0], 64)
		out.peak = n / 1024
	}
	return out
}

// per returns the requests, kilobytes and events between two moments, divided by n.
func (l load) per(before load, n float64) string {
	delta := counters{requests: map[string]float64{}}
	total := 0.0
	for method, v := range l.requests {
		if d := (v - before.requests[method]) / n; d > 0 {
			delta.requests[method] = d
			total += d
		}
	}
	return fmt.Sprintf("%.4g requests (%s), %.4g KB in, %.4g KB out, %.4g watch deliveries, %.3g ms CPU",
		total, delta.since(counters{}), (l.received-before.received)/1024/n, (l.sent-before.sent)/1024/n, (l.events-before.events)/n, (l.cpu-before.cpu)*1000/n)
}

// pause waits, or until ctx is done.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
