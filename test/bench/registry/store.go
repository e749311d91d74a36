package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// store is an etcd in this process, without fsync, on loopback.
type store struct {
	dir    string
	server *embed.Etcd
	url    string
	client *clientv3.Client
}

func startStore() (*store, error) {
	dir, err := os.MkdirTemp("", "loden-bench-registry-")
	if err != nil {
		return nil, err
	}
	any0 := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	conf := embed.NewConfig()
	conf.Dir, conf.UnsafeNoFsync = dir, true
	conf.ListenClientUrls, conf.AdvertiseClientUrls = []url.URL{any0}, []url.URL{any0}
	conf.ListenPeerUrls, conf.AdvertisePeerUrls = []url.URL{any0}, []url.URL{any0}
	conf.InitialCluster = conf.Name + "=" + any0.String()
	conf.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(conf)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	<-server.Server.ReadyNotify()
	s := &store{dir: dir, server: server, url: "http://" + server.Clients[0].Addr().String()}
	s.client, err = clientv3.New(clientv3.Config{Endpoints: []string{s.url}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	return s, err
}

func (s *store) close() {
	_ = s.client.Close()
	s.server.Close()
	_ = os.RemoveAll(s.dir)
}

func (s *store) put(ctx context.Context, key, value string) error {
	_, err := s.client.Put(ctx, key, value)
	return err
}

func (s *store) clear(ctx context.Context, prefix string) error {
	_, err := s.client.Delete(ctx, prefix+"/", clientv3.WithPrefix())
	return err
}

// counters are etcd's own.
type counters struct {
	requests map[string]float64 // by method
	events   int64              // sent to watchers
}

func (s *store) counters() counters {
	out := counters{requests: map[string]float64{}}
	families, err := prometheus.DefaultGatherer.Gather()
	if err != nil {
		return out
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "grpc_server_started_total":
				for _, l := range m.GetLabel() {
					if l.GetName() == "grpc_method" {
						out.requests[l.GetValue()] += m.GetCounter().GetValue()
					}
				}
			case "etcd_debugging_mvcc_events_total":
				out.events = int64(m.GetCounter().GetValue())
			}
		}
	}
	return out
}

// since names the requests between two moments.
func (c counters) since(before counters) string {
	var out []string
	for method, n := range c.requests {
		if d := n - before.requests[method]; d > 0 {
			out = append(out, fmt.Sprintf("%s %.4g", method, d))
		}
	}
	sort.Strings(out)
	return strings.Join(out, ", ")
}
