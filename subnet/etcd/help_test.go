package etcd_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/subnet/etcd"
)

// plain returns etcd's own client, for requests that Loden does not send.
func plain(t *testing.T, endpoints ...string) *clientv3.Client {
	t.Helper()
	conf := clientv3.Config{Endpoints: endpoints}
	if err := etcd.Silence(&conf); err != nil {
		t.Fatal(err)
	}
	c, err := clientv3.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// ready waits until etcd answers.
func ready(t *testing.T, c *clientv3.Client) {
	t.Helper()
	eventually(t, "etcd answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := c.Get(ctx, "x")
		return err == nil
	})
}

// patience bounds every wait for a condition; a loaded machine is slow.
const patience = 60 * time.Second

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	eventuallyWithin(t, patience, what, ok)
}

// eventuallyWithin is eventually with another bound.
func eventuallyWithin(t *testing.T, limit time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited %v for: %s", limit, what)
		case <-tick.C:
		}
	}
}

var (
	prefixes sync.Map     // *testing.T → its prefix
	runs     atomic.Int64 // numbers them: a test that runs twice finds no key of its first run
)

// prefix returns the prefix of this run of the test.
func prefix(t *testing.T) string {
	own, _ := prefixes.LoadOrStore(t, fmt.Sprintf("/test/%s-%d", strings.ReplaceAll(t.Name(), "/", "_"), runs.Add(1)))
	return own.(string)
}

// within returns a context that ends before the test does.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// open returns a registry on the shared etcd, or on the endpoints given, with quick probes.
func open(t *testing.T, change func(*etcd.Options), endpoints ...string) *etcd.Registry {
	t.Helper()
	return openLog(t, zerolog.New(zerolog.NewTestWriter(t)), change, endpoints...)
}

// openQuiet is open without a log, for tests that lose thousands of races.
func openQuiet(t *testing.T) *etcd.Registry {
	t.Helper()
	return openLog(t, zerolog.Nop(), nil)
}

func openLog(t *testing.T, log zerolog.Logger, change func(*etcd.Options), endpoints ...string) *etcd.Registry {
	t.Helper()
	if len(endpoints) == 0 {
		endpoints = []string{shared}
	}
	opts := etcd.Options{
		Endpoints: endpoints, Prefix: prefix(t), TTL: time.Minute,
		RPCTimeout: 20 * time.Second, DialTimeout: time.Second, Probe: 200 * time.Millisecond,
	}
	if change != nil {
		change(&opts)
	}
	r, err := etcd.Open(t.Context(), opts, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}
