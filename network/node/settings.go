package node

import (
	"github.com/rs/zerolog"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/subnet/etcd"
)

// Settings are what a node works with: the operator's settings, and what the program that
// embeds the node adds. The zero value is not usable: fill Node from its flags first.
type Settings struct {
	config.Node
	Version string // of the program, for the report and the metrics
	Log     zerolog.Logger
}

// EtcdOptions returns the store's options from the node's settings.
func EtcdOptions(node *config.Node) etcd.Options {
	return etcd.Options{
		Endpoints: node.EtcdEndpoints, Prefix: node.EtcdPrefix,
		CertFile: node.EtcdCertFile, KeyFile: node.EtcdKeyFile, CAFile: node.EtcdCAFile,
		Username: node.EtcdUsername, Password: string(node.EtcdPassword), TTL: node.LeaseTTL,
	}
}
