package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// values are what one round of one contender gave, by metric.
type values map[string]float64

// measure builds a bed and runs every test on it.
func measure(ctx context.Context, o options, c contender) (values, error) {
	b, err := build(ctx, o, c)
	if err != nil {
		return nil, err
	}
	defer b.close()
	server, err := b.serve(ctx)
	if err != nil {
		return nil, err
	}
	defer server()
	out := values{}
	before := readMachine()
	for test := range strings.SplitSeq(o.tests, ",") {
		if err := b.test(ctx, o, test, out); err != nil {
			return nil, fmt.Errorf("test %s: %w", test, err)
		}
	}
	out["steal %"] = readMachine().stealSince(before)
	out["RSS MB"] = (rss(b.sides[0].engine.Process.Pid) + rss(b.sides[1].engine.Process.Pid)) / 2
	return out, nil
}

// serve starts the servers in pod 2.
func (b *bed) serve(ctx context.Context) (stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	pod := b.sides[1].pod
	iperf := pod.Command(ctx, "iperf3", "-s")
	echo := pod.Command(ctx, self, "serve")
	if err := iperf.Start(); err != nil {
		return nil, err
	}
	if err := echo.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		for _, c := range []interface{ Wait() error }{iperf, echo} {
			defer func() { _ = c.Wait() }()
		}
		_ = iperf.Process.Kill()
		_ = echo.Process.Kill()
	}
	err = eventually(ctx, 10*time.Second, func() error {
		_, err := b.client("rtt", 10*time.Millisecond)
		return err
	})
	if err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// test runs one test by name.
func (b *bed) test(ctx context.Context, o options, test string, out values) error {
	switch test {
	case "tcp1", "tcp4":
		var err error
		for range 3 { // the server may still be busy with a client before
			if err = b.tcp(o, test, out); err == nil {
				break
			}
		}
		return err
	case "rtt":
		return b.add(out, "idle round trip µs", "rtt", o.length)
	case "udp64":
		return b.add(out, "UDP 64 B kpps", "udp", o.length)
	case "load":
		return b.loaded(ctx, o, out)
	}
	return fmt.Errorf("no test %q", test)
}

// loaded measures round trips while a stream saturates the tunnel.
func (b *bed) loaded(ctx context.Context, o options, out values) error {
	var failed error
	for range 3 { // a stream that ended early, or was refused, is no load
		load := b.sides[0].pod.Command(ctx, "iperf3", "-c", b.sides[1].inner, "-C", "cubic", "-t", seconds(o.length+2*time.Second))
		if err := load.Start(); err != nil {
			return err
		}
		select { // the stream fills the queues first
		case <-time.After(time.Second):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), load.Wait())
		}
		err := b.add(out, "round trip under load µs", "rtt", o.length)
		if failed = errors.Join(err, load.Wait()); failed == nil {
			return nil
		}
	}
	return failed
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds())) }

// client runs this program as a client in pod 1 and returns the number it prints.
func (b *bed) client(verb string, length time.Duration) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	text, err := b.sides[0].pod.Output(self, verb, b.sides[1].inner, length.String())
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(text), 64)
}

func (b *bed) add(out values, metric, verb string, length time.Duration) error {
	v, err := b.client(verb, length)
	out[metric] = v
	return err
}

// tcp runs iperf3 and reads throughput and what the engines' CPU time was.
func (b *bed) tcp(o options, test string, out values) error {
	streams := strings.TrimPrefix(test, "tcp")
	before := b.cpu()
	text, err := b.sides[0].pod.Output("iperf3", "-c", b.sides[1].inner, "-C", "cubic", "-t", seconds(o.length), "-P", streams, "-J")
	if err != nil {
		return err
	}
	used := b.cpu() - before
	var report struct {
		Error string
		End   struct {
			Received struct {
				Bytes float64 `json:"bytes"`
				Rate  float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		return fmt.Errorf("read iperf3's report: %w", err)
	}
	if report.Error != "" {
		return fmt.Errorf("measure TCP: iperf3: %s", report.Error)
	}
	out["TCP "+streams+" Gbit/s"] = report.End.Received.Rate / 1e9
	out["TCP "+streams+" CPU s/GB"] = used / (report.End.Received.Bytes / 1e9)
	return nil
}

// cpu returns the seconds of CPU time that both engines have used.
func (b *bed) cpu() float64 {
	return cpuSeconds(b.sides[0].engine.Process.Pid) + cpuSeconds(b.sides[1].engine.Process.Pid)
}

const ticksPerSecond = 100 // USER_HZ, the same on every Linux

func cpuSeconds(pid int) float64 {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	at := bytes.LastIndexByte(raw, ')')
	if err != nil || at < 0 {
		return 0
	}
	fields := strings.Fields(string(raw[at+1:])) // from "state" on: utime is the 12th, stime the 13th
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticksPerSecond
}

// rss returns the resident set of a process in MB.
func rss(pid int) float64 { return procNumber(pid, "status", "VmRSS:") / 1024 }

// procNumber returns the number behind a word in a file of /proc/PID.
func procNumber(pid int, file, word string) float64 {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == word {
			n, _ := strconv.ParseFloat(fields[1], 64)
			return n
		}
	}
	return 0
}

// machine is the CPU time of the whole machine, in ticks.
type machine struct{ steal, all float64 }

func readMachine() (m machine) {
	raw, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(raw), "\n")
	for i, field := range strings.Fields(first) {
		n, _ := strconv.ParseFloat(field, 64)
		if i >= 1 && i <= 8 {
			m.all += n
		}
		if i == 8 {
			m.steal = n
		}
	}
	return m
}

// stealSince returns what the hypervisor took since before, in per cent.
func (m machine) stealSince(before machine) float64 {
	return 100 * (m.steal - before.steal) / max(1, m.all-before.all)
}
