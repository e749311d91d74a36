package node

import (
	"github.com/rs/zerolog"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/set"
	"github.com/loden-net/loden/network"
	"github.com/loden-net/loden/network/firewall"
	"github.com/loden-net/loden/subnet/etcd"
)

// Settings are the operator's settings, and the additions of the program that embeds the
// node. Name, Interface, Etcd, the directories and the durations must be
// set; config.Node.Parse gives them all.
type Settings struct {
	config.Settings
	Version string // of the program, for the report and the metrics
	Log     zerolog.Logger

	// Record is kept in the run directory while the node is installed, so that other
	// commands of the program find the settings of the daemon. It must hold no secret. Nil
	// keeps no record.
	Record []byte
}

// Store returns the options of the store.
func (s Settings) Store() etcd.Options {
	e := s.Etcd
	return etcd.Options{
		Endpoints: e.Endpoints, Prefix: e.Prefix, CertFile: e.CertFile, KeyFile: e.KeyFile, CAFile: e.CAFile, ServerName: e.ServerName,
		Username: e.Username, Password: e.Password, TTL: s.LeaseTTL,
	}
}

// self returns the node's own part of the inputs of a plan.
func (s Settings) self(key backend.PrivateKey, kernel bool) network.Self {
	r := s.Rules
	return network.Self{
		Name: s.Name, Key: key.Public(), Port: s.ListenPort, Interface: s.Interface, Kernel: kernel,
		Policy: firewall.Policy{
			Masq: r.Masq, IPv6Masq: firewall.IPv6Masq(r.IPv6Masq), Exclude: set.NewPrefixes(r.Exclude...),
			Mark: firewall.Mark(r.Mark), RandomFully: r.RandomFully, Forward: r.Forward, Guard: firewall.Mode(r.Guard), Ports: r.GuardPorts,
		},
	}
}
