package main

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox/linediff"
)

const dualEnv = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\n" +
	"FLANNEL_IPV6_NETWORK=fd44::/48\nFLANNEL_IPV6_SUBNET=fd44:0:0:3::1/64\nFLANNEL_MTU=1420\nFLANNEL_IPMASQ=true\n"

func TestDelegateConfiguration(t *testing.T) {
	for _, c := range []struct{ name, conf, env, want string }{
		{
			"nothing given", `{"cniVersion":"1.0.0","name":"n","type":"loden-cni"}`, dualEnv,
			`{"cniVersion":"1.0.0","name":"n","type":"bridge","mtu":1420,"ipMasq":false,"isGateway":true,"ipam":{"type":"host-local",
			"ranges":[[{"subnet":"10.244.3.0/24"}],[{"subnet":"fd44:0:0:3::/64"}]],"routes":[{"dst":"10.244.0.0/16"},{"dst":"fd44::/48"}]}}`,
		},
		{
			"IPv6 only, nobody masquerades", `{"cniVersion":"1.0.0","name":"n"}`,
			"FLANNEL_IPV6_NETWORK=fd44::/48\nFLANNEL_IPV6_SUBNET=fd44:0:0:3::1/64\nFLANNEL_MTU=1400\nFLANNEL_IPMASQ=false\n",
			`{"cniVersion":"1.0.0","name":"n","type":"bridge","mtu":1400,"ipMasq":true,"isGateway":true,"ipam":{"type":"host-local",
			"ranges":[[{"subnet":"fd44:0:0:3::/64"}]],"routes":[{"dst":"fd44::/48"}]}}`,
		},
		{
			"what is given wins", `{"cniVersion":"1.0.0","name":"n","delegate":{"bridge":"br7","mtu":1300,"ipMasq":true,"isGateway":false,"vlan":12345678901234567890},
			"ipam":{"type":"other","dataDir":"/x","ranges":[["no"]],"routes":[{"dst":"192.0.2.0/24","gw":"10.244.3.9"}]},
			"runtimeConfig":{"mac":"00:11:22:33:44:55"}}`, dualEnv,
			`{"cniVersion":"1.0.0","name":"n","type":"bridge","bridge":"br7","mtu":1300,"ipMasq":true,"isGateway":false,"vlan":12345678901234567890,
			"runtimeConfig":{"mac":"00:11:22:33:44:55"},"ipam":{"type":"other","dataDir":"/x","ranges":[[{"subnet":"10.244.3.0/24"}],[{"subnet":"fd44:0:0:3::/64"}]],
			"routes":[{"dst":"192.0.2.0/24","gw":"10.244.3.9"},{"dst":"10.244.0.0/16"},{"dst":"fd44::/48"}]}}`,
		},
		{
			"another delegate has no gateway of its own", `{"cniVersion":"1.1.0","name":"n","delegate":{"type":"ptp"}}`, dualEnv,
			`{"cniVersion":"1.1.0","name":"n","type":"ptp","mtu":1420,"ipMasq":false,"ipam":{"type":"host-local",
			"ranges":[[{"subnet":"10.244.3.0/24"}],[{"subnet":"fd44:0:0:3::/64"}]],"routes":[{"dst":"10.244.0.0/16"},{"dst":"fd44::/48"}]}}`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf, err := parseConf([]byte(c.conf))
			if err != nil {
				t.Fatal(err)
			}
			env, err := config.ParseEnv([]byte(c.env))
			if err != nil {
				t.Fatal(err)
			}
			got, err := delegate(conf, env)
			if err != nil {
				t.Fatal(err)
			}
			if diff := linediff.Of(tree(t, []byte(c.want)), tree(t, marshalled(t, got))); diff != "" {
				t.Errorf("delegate's configuration (-want +got):\n%s", diff)
			}
		})
	}
}

// marshalled returns the delegate's configuration as the delegate reads it.
func marshalled(t *testing.T, d delegation) []byte {
	t.Helper()
	data, err := d.Config.marshal(nil)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// tree returns JSON in a form to compare: keys sorted, one value per line, numbers as they are written.
func tree(t *testing.T, data []byte) string {
	t.Helper()
	var out any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	text, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestConfigurationIsRefused(t *testing.T) {
	for _, c := range []struct{ conf, want string }{
		{`{"name":"n","delegate":{"type":7}}`, "must have (string) 'type' field"},
		{`{"name":"n","delegate":{"name":"x"}}`, "must not have 'name' field"},
		{`{"name":"n","delegate":{"ipam":{}}}`, "must not have 'ipam' field"},
		{`{"name":"n","ipam":{"type":[]}}`, "'type' must be a string"},
		{`{"name":"n","delegate":[]}`, "read configuration"},
	} {
		if _, err := parseConf([]byte(c.conf)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.conf, err, c.want)
		}
	}
}

func TestIncompleteSubnetEnvIsNamed(t *testing.T) {
	for _, c := range []struct{ drop, want string }{
		{"FLANNEL_MTU=1420", "FLANNEL_MTU is missing"},
		{"FLANNEL_NETWORK=10.244.0.0/16", "IPv4 has a network or a subnet but not both"},
		{"FLANNEL_IPV6_SUBNET=fd44:0:0:3::1/64", "IPv6 has a network or a subnet but not both"},
		{"FLANNEL_NETWORK=10.244.0.0/16>FLANNEL_NETWORK=10.245.0.0/16", "is outside of the network 10.245.0.0/16"},
	} {
		old, other, _ := strings.Cut(c.drop, ">")
		env, err := config.ParseEnv([]byte(strings.Replace(dualEnv, old+"\n", other+"\n", 1)))
		if err != nil {
			t.Fatal(err)
		}
		if err := complete(env); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("without %q: got %v, want %q", c.drop, err, c.want)
		}
	}
	if env, err := config.ParseEnv([]byte(dualEnv)); err != nil || complete(env) != nil {
		t.Errorf("whole file: %v, %v", err, complete(env))
	}
}

// A bridge is a stranger when some family has addresses, and none of them in the subnet.
func TestStrangerAgreesWithItsSentence(t *testing.T) {
	subnets := opt.Dual[netip.Prefix]{
		V4: opt.Some(netip.MustParsePrefix("10.0.0.0/24")), V6: opt.Some(netip.MustParsePrefix("fd00::/64")),
	}
	rapid.Check(t, func(t *rapid.T) {
		held := rapid.SliceOf(rapid.SampledFrom([]netip.Prefix{
			netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.1.1/24"), netip.MustParsePrefix("10.0.2.1/16"),
			netip.MustParsePrefix("fd00::1/64"), netip.MustParsePrefix("fd00:1::1/64"), netip.MustParsePrefix("fe80::1/64"),
			netip.MustParsePrefix("169.254.1.1/16"),
		})).Draw(t, "held")
		has := func(text string) bool {
			for _, p := range held {
				if p.String() == text {
					return true
				}
			}
			return false
		}
		want := !has("10.0.0.1/24") && (has("10.0.1.1/24") || has("10.0.2.1/16")) || !has("fd00::1/64") && has("fd00:1::1/64")
		if got := foreignAddress(subnets, held); got.Present() != want {
			t.Fatalf("held %v: stranger %v, want one: %v", held, got, want)
		}
	})
}

func TestAnswersOfTheDaemon(t *testing.T) {
	for _, c := range []struct {
		answer, reason string
		ready, fails   bool
	}{
		{answer: "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nready\n", ready: true, reason: "ready"},
		{answer: "HTTP/1.1 503 Service Unavailable\r\n\r\nno lease yet\nmore\n", reason: "no lease yet"},
		{answer: "HTTP/1.0 503 x\r\n\r\n", reason: "the daemon is not ready and gives no reason; see 'loden status' on this node"},
		{answer: "HTTP/1.0 404 Not Found\r\n\r\nno", fails: true},
		{answer: "HTTP/1.0 200 OK\r\n", fails: true},
		{answer: "SSH-2.0-x\r\n\r\n", fails: true},
		{answer: "", fails: true},
	} {
		ready, reason, err := parseAnswer([]byte(c.answer))
		if ready != c.ready || reason != c.reason || (err != nil) != c.fails {
			t.Errorf("%q: %v %q %v", c.answer, ready, reason, err)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.0 200 OK\r\n\r\nready\n"))
	f.Add([]byte("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nwaiting\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		ready, reason, err := parseAnswer(answer)
		if err != nil && (ready || reason != "") || err == nil && (reason == "" || strings.Contains(reason, "\n")) {
			t.Errorf("%q: %v %q %v", answer, ready, reason, err)
		}
	})
}

// For every configuration, the delegate's configuration has this node's ranges and the network's name.
func FuzzDelegate(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"n","delegate":{"type":"ptp"},"ipam":{"routes":[{"dst":"0.0.0.0/0"}]}}`))
	f.Add([]byte(`{"name":"n","delegate":null,"ipam":null,"runtimeConfig":{"a":1}}`))
	env, err := config.ParseEnv([]byte(dualEnv))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		conf, err := parseConf(data)
		if err != nil {
			return
		}
		got, err := delegate(conf, env)
		if err != nil {
			return
		}
		var made struct {
			Name string `json:"name"`
			Type string `json:"type"`
			IPAM struct {
				Ranges [][]struct{ Subnet string } `json:"ranges"`
			} `json:"ipam"`
		}
		if err := json.Unmarshal(marshalled(t, got), &made); err != nil {
			t.Fatalf("%v in %s", err, got.Config)
		}
		if made.Name != conf.Name || made.Type != got.Plugin || len(made.IPAM.Ranges) != 2 || made.IPAM.Ranges[0][0].Subnet != "10.244.3.0/24" {
			t.Errorf("delegated %s for %s", got.Config, data)
		}
	})
}
