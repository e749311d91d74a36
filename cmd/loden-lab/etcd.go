package main

import (
	"context"
	"fmt"
	"net/url"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// etcdCommand is the store of the lab, in a process of its own so that it can be killed.
func etcdCommand() *cobra.Command {
	var listen, dir string
	cmd := &cobra.Command{
		Use: "etcd", Short: "Run a single etcd server for the lab", Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return serveEtcd(cmd.Context(), listen, dir) },
	}
	cmd.Flags().StringVar(&listen, "listen", "http://127.0.0.1:2379", "URL for clients")
	cmd.Flags().StringVar(&dir, "data-dir", "", "directory of the data")
	return cmd
}

// serveEtcd runs etcd until ctx is done. The lab's data is worth nothing after a crash of
// the machine, so it is not synced to disk.
func serveEtcd(ctx context.Context, listen, dir string) error {
	clients, err := url.Parse(listen)
	if err != nil {
		return fmt.Errorf("read --listen: %w", err)
	}
	peers := url.URL{Scheme: "http", Host: "127.0.0.1:2380"} // nobody: a cluster of one
	cfg := embed.NewConfig()
	cfg.Dir = dir
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*clients}, []url.URL{*clients}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peers}, []url.URL{peers}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.LogLevel = "error"
	cfg.UnsafeNoFsync = true
	server, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer server.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-server.Err():
		return fmt.Errorf("serve etcd: %w", err)
	}
}
