package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loden-net/loden/config"
)

func TestEnvPrintsOptionsOfDocker(t *testing.T) {
	for _, c := range []struct{ name, env, want string }{
		{
			"dual stack, loden masquerades",
			"FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_IPV6_NETWORK=fd00::/48\nFLANNEL_IPV6_SUBNET=fd00:0:0:1::1/64\nFLANNEL_MTU=1420\nFLANNEL_IPMASQ=true\n",
			"DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\nDOCKER_OPT_IPV6=\"--ipv6 --fixed-cidr-v6=fd00:0:0:1::/64\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=false\"\nDOCKER_OPT_MTU=\"--mtu=1420\"\n" +
				"DOCKER_OPTS=\"--bip=10.1.74.1/24 --ipv6 --fixed-cidr-v6=fd00:0:0:1::/64 --ip-masq=false --mtu=1420\"\n",
		},
		{
			"IPv4, docker masquerades",
			"FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.74.1/24\nFLANNEL_MTU=1420\nFLANNEL_IPMASQ=false\n",
			"DOCKER_OPT_BIP=\"--bip=10.1.74.1/24\"\nDOCKER_OPT_IPMASQ=\"--ip-masq=true\"\nDOCKER_OPT_MTU=\"--mtu=1420\"\n" +
				"DOCKER_OPTS=\"--bip=10.1.74.1/24 --ip-masq=true --mtu=1420\"\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "subnet.env")
			if err := config.WriteFile(path, []byte(c.env), 0o644, 0o755); err != nil {
				t.Fatal(err)
			}
			if got, err := runEnv("--docker", "--subnet-file", path); err != nil || got != c.want {
				t.Errorf("--docker: %v\n%s\nwant\n%s", err, got, c.want)
			}
			if got, err := runEnv("--subnet-file", path); err != nil || got != c.env {
				t.Errorf("plain: %v\n%s\nwant the file itself\n%s", err, got, c.env)
			}
		})
	}
	if _, err := runEnv("--subnet-file", "/nonexistent"); err == nil || !strings.Contains(err.Error(), "loden status") {
		t.Errorf("without a file: %v", err)
	}
}

func runEnv(args ...string) (string, error) {
	var out bytes.Buffer
	cmd := envCommand()
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SilenceUsage = true
	err := cmd.Execute()
	return out.String(), err
}
