package main

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/loden-net/loden/test/sandbox"
)

// The super-packet that the bound is reckoned for: the contents of a full TUN read.
const (
	superSegments = 46
	superPayload  = podMTU - 20 - 20 // of a TCP segment
	superBytes    = superSegments * superPayload
)

// unitCosts reckons how fast any tunnel with ChaCha20-Poly1305 could be here: the cost of the
// pods' own TCP without a tunnel, and of each unavoidable step once, on all cores.
func (b *bed) unitCosts(ctx context.Context, o options, t test) (values, error) {
	plain, err := b.tcp(ctx, o, test{kind: "tcp1"})
	if err != nil {
		return nil, err
	}
	h, err := sandbox.NewHost("units")
	if err != nil {
		return nil, err
	}
	defer h.Close()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := h.Command(ctx, self, "units")
	cmd.Stderr = os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	v := values{"pods' TCP µs": plain["machine s/GB"] * superBytes / 1e3}
	for line := range strings.Lines(string(text)) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), "=")
		if v[name], err = strconv.ParseFloat(number, 64); err != nil {
			return nil, err
		}
	}
	sum := 0.0
	for _, cost := range v {
		sum += cost
	}
	v["sum µs"] = sum
	v["Gbit/s"] = float64(runtime.NumCPU()) * superBytes * 8 / (sum * 1e3)
	return v, nil
}

// best returns the least time of a call of fn, in µs, from several rounds of calls.
func best(calls int, fn func()) float64 {
	least := time.Duration(1 << 62)
	for range 7 {
		began := time.Now()
		for range calls {
			fn()
		}
		least = min(least, time.Since(began)/time.Duration(calls))
	}
	return float64(least.Nanoseconds()) / 1e3
}

// bestDrain fills a queue and times emptying it, per packet, in µs; 0 if no packet came.
func bestDrain(fill func(), drain func() int) float64 {
	least := 0.0
	for range 20 {
		fill()
		began := time.Now()
		if n := drain(); n > 0 {
			each := float64(time.Since(began).Nanoseconds()) / 1e3 / float64(n)
			if least == 0 || each < least {
				least = each
			}
		}
	}
	return least
}
