// Package config owns every document and setting: the cluster's network document, the
// node's own settings, and subnet.env, which is the contract with the CNI plugin. It
// parses each into a valid value once; it does not know etcd, the kernel or WireGuard.
package config
