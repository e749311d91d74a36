package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/loden-net/loden/test/bench/proc"
)

// values are the results of a test, by quantity.
type values map[string]float64

// test is a measurement under conditions, as in tcp4.v6.frames.
type test struct {
	name       string
	kind       string
	in6, out6  bool
	frames     bool
	conditions int
}

var kinds = map[string]func(*bed, context.Context, options, test) (values, error){
	"tcp1": (*bed).tcp, "tcp4": (*bed).tcp, "udp64": (*bed).udp, "rtt": (*bed).paced,
	"pong": (*bed).pingPong, "rr": (*bed).echoed, "load": (*bed).loaded, "rss": (*bed).memory, "bound": (*bed).unitCosts,
}

func parseTests(text string) (tests []test, err error) {
	for name := range strings.SplitSeq(text, ",") {
		words := strings.Split(name, ".")
		t := test{name: name, kind: words[0], conditions: len(words) - 1}
		if kinds[t.kind] == nil {
			return nil, fmt.Errorf("no test %q", name)
		}
		for _, word := range words[1:] {
			switch word {
			case "in6":
				t.in6 = true
			case "out6":
				t.out6 = true
			case "v6":
				t.in6, t.out6 = true, true
			case "frames":
				t.frames = true
			default:
				return nil, fmt.Errorf("test %q: no condition %q", name, word)
			}
		}
		tests = append(tests, t)
	}
	return tests, nil
}

// suits reports whether a test says something about a contender: families are compared
// within loden, nebula carries IPv4 here, and raw gives the anchors and the bound.
func (t test) suits(c contender) bool {
	switch {
	case t.kind == "bound":
		return c.role == roleRaw
	case c.role == roleRaw:
		return t.conditions == 0 && slices.Contains([]string{"tcp1", "rtt", "pong", "rr"}, t.kind)
	case t.in6 || t.out6:
		return c.role == roleLoden
	}
	return true
}

// family returns 1 for IPv6.
func family(v6 bool) int {
	if v6 {
		return 1
	}
	return 0
}

// target is the address in pod 2 that a test goes to.
func (b *bed) target(t test) string { return b.sides[1].inner[family(t.in6)] }

// measure runs a test under its conditions.
func (b *bed) measure(ctx context.Context, o options, t test) (values, error) {
	if t.frames {
		if err := b.segmentation("off"); err != nil {
			return nil, err
		}
		defer func() { _ = b.segmentation("on") }()
	}
	if t.out6 {
		if err := b.underlay(1); err != nil {
			return nil, err
		}
		defer func() { _ = b.underlay(0) }()
	}
	if err := b.sides[0].reach(b.target(t)); err != nil {
		return nil, err
	}
	if b.wireGuard() {
		if err := b.checkUnderlay(family(t.out6)); err != nil {
			return nil, err
		}
	}
	v, err := kinds[t.kind](b, ctx, o, t)
	if err == nil && b.wireGuard() {
		err = b.checkUnderlay(family(t.out6))
	}
	return v, err
}

// segmentation turns offloads of the wire on or off: without them every frame is real, as
// with a network card that cannot cut UDP.
func (b *bed) segmentation(state string) error {
	for _, s := range b.sides {
		if err := s.host.Run("ethtool", "-K", "eth0", "gso", state, "tso", state, "tx-udp-segmentation", state); err != nil {
			return err
		}
	}
	return nil
}

// tcp runs iperf3 and reads throughput and CPU time.
func (b *bed) tcp(ctx context.Context, o options, t test) (values, error) {
	engines, machine := b.cpu(), readMachine()
	report, err := b.stream(ctx, t, o.length, strings.TrimPrefix(t.kind, "tcp"))
	if err != nil {
		return nil, err
	}
	gigabytes := report.End.Received.Bytes / 1e9
	v := values{
		"Gbit/s": report.End.Received.Rate / 1e9, "retransmits": report.End.Sent.Retransmits,
		"machine s/GB": (readMachine().busy - machine.busy) / proc.TicksPerSecond / gigabytes,
	}
	if b.role != roleRaw {
		v["CPU s/GB"] = (b.cpu() - engines) / gigabytes
	}
	return v, nil
}

// streamReport is the part of iperf3's report that is read here.
type streamReport struct {
	Error string `json:"error"`
	End   struct {
		Sent struct {
			Retransmits float64 `json:"retransmits"`
		} `json:"sum_sent"`
		Received struct {
			Bytes float64 `json:"bytes"`
			Rate  float64 `json:"bits_per_second"`
		} `json:"sum_received"`
	} `json:"end"`
}

// stream runs iperf3 with cubic, also where the machine's default differs.
func (b *bed) stream(ctx context.Context, t test, length time.Duration, streams string) (r streamReport, err error) {
	ctx, cancel := context.WithTimeout(ctx, length+20*time.Second)
	defer cancel()
	text, err := b.sides[0].pod.Command(ctx, "iperf3", "-c", b.target(t), "-C", "cubic",
		"-t", strconv.Itoa(int(length.Seconds())), "-P", streams, "-J").Output()
	if failed := json.Unmarshal(text, &r); failed == nil && r.Error != "" {
		return r, fmt.Errorf("iperf3: %s", r.Error)
	}
	if err == nil && r.End.Received.Bytes == 0 {
		err = errors.New("iperf3: nothing arrived")
	}
	return r, err
}

// loaded measures round trips while a stream saturates the tunnel.
func (b *bed) loaded(ctx context.Context, o options, t test) (values, error) {
	type ended struct {
		streamReport
		error
	}
	stream := make(chan ended, 1)
	go func() {
		r, err := b.stream(ctx, t, o.length+2*time.Second, "1")
		stream <- ended{r, err}
	}()
	select { // the stream fills the queues first
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	v, err := b.paced(ctx, o, t)
	under := <-stream
	if err := errors.Join(err, under.error, ctx.Err()); err != nil {
		return nil, err
	}
	v["stream Gbit/s"] = under.End.Received.Rate / 1e9
	return v, nil
}

// paced pings from pod to pod, modestly: the machine sleeps in between.
func (b *bed) paced(ctx context.Context, o options, t test) (values, error) {
	return b.roundTrips(ctx, o, t, o.interval)
}

// pingPong pings from pod to pod, back to back.
func (b *bed) pingPong(ctx context.Context, o options, t test) (values, error) {
	return b.roundTrips(ctx, o, t, 0)
}

// echoed lets a program in a pod play ping-pong with a program in the other pod, over TCP.
func (b *bed) echoed(ctx context.Context, o options, t test) (values, error) {
	n, err := b.client(ctx, 2, "rr", b.target(t), o.length.String())
	if err != nil {
		return nil, err
	}
	return values{"p50 µs": n[0], "p99 µs": n[1]}, nil
}

func (b *bed) roundTrips(ctx context.Context, o options, t test, interval time.Duration) (values, error) {
	n, err := b.client(ctx, 4, "ping", b.target(t), interval.String(), o.length.String())
	if err != nil {
		return nil, err
	}
	return values{"p50 µs": n[0], "p99 µs": n[1], "lost %": n[2], "pings": n[3]}, nil
}

// udp sends 64-byte datagrams as fast as it can.
func (b *bed) udp(ctx context.Context, o options, t test) (values, error) {
	n, err := b.client(ctx, 2, "udp", b.target(t), o.length.String())
	if err != nil {
		return nil, err
	}
	return values{"kpps": n[0], "offered kpps": n[1]}, nil
}

// memory reads the resident sets of the engines; it is the last test of a round.
func (b *bed) memory(context.Context, options, test) (values, error) {
	if b.sides[0].engine == nil {
		return nil, errors.New("no engine")
	}
	return values{"MB": (proc.RSS(b.sides[0].engine.Process.Pid) + proc.RSS(b.sides[1].engine.Process.Pid)) / 2}, nil
}

// client runs this program as a client in pod 1 and returns the numbers it prints.
func (b *bed) client(ctx context.Context, want int, args ...string) (numbers []float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := b.sides[0].pod.Command(ctx, self, args...)
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w", args, err)
	}
	for _, word := range strings.Fields(string(text)) {
		n, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	if len(numbers) != want {
		return nil, fmt.Errorf("%v printed %q", args, text)
	}
	return numbers, nil
}

// cpu returns the seconds of CPU time that both engines have used.
func (b *bed) cpu() (seconds float64) {
	for _, s := range b.sides {
		if s.engine != nil {
			seconds += proc.Ticks(s.engine.Process.Pid) / proc.TicksPerSecond
		}
	}
	return seconds
}
