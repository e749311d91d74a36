package system_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/loden-net/loden/test/lab"
)

// plaintextDaemon stands in for `loden`: it gives the node the same addresses, routes and
// masquerade, but without a tunnel. The lab's verdict on it is the control of the
// lab's verdict on the real cluster.
const plaintextDaemon = `#!/bin/sh
set -e
[ "$1" = run ] || exit 0
while [ $# -gt 0 ]; do [ "$1" = --node-name ] && name=$2; shift; done
me=${name#node}
for n in 1 2 3; do
	[ $n = $me ] && continue
	ip route add 10.244.$n.0/24 via 172.20.0.$((16 + n))
	ip -6 addr show dev eth0 | grep -q 2001:db8:20: || ip addr add 2001:db8:20::$me/64 dev eth0 nodad
	ip -6 route add fd10:244:0:$n::/64 via 2001:db8:20::$n
done
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
iptables  -w -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE
ip6tables -w -t nat -A POSTROUTING -s fd10:244::/48 ! -d fd10:244::/48 -j MASQUERADE
cat >/run/flannel/subnet.env <<END
FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.$me.1/24
FLANNEL_IPV6_NETWORK=fd10:244::/48
FLANNEL_IPV6_SUBNET=fd10:244:0:$me::1/64
FLANNEL_MTU=1500
FLANNEL_IPMASQ=true
END
cat >/etc/cni/net.d/10-plaintext.conflist <<END
{"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "loden-cni", "delegate": {"isDefaultGateway": true}}]}
END
exec sleep 3600
`

// TestLabTellsPlaintextFromTunnel is the positive control: pods reach each other over the
// same wires by plain routes, and the lab must recognise every path as plaintext.
func TestLabTellsPlaintextFromTunnel(t *testing.T) {
	bin := t.TempDir()
	for _, p := range []string{"loden-cni", "etcd", "cni"} {
		if err := os.Symlink(filepath.Join(programs(t), p), filepath.Join(bin, p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(bin, "loden"), []byte(plaintextDaemon), 0o755); err != nil {
		t.Fatal(err)
	}
	l := upLab(t, lab.Options{Nodes: 3, Pods: 1, Bin: bin})
	v := l.Check(t.Context())
	if v.OK || v.Underlay[lab.Clear] == 0 {
		t.Fatalf("plaintext cluster was found good: %d frames in clear", v.Underlay[lab.Clear])
	}
	for _, p := range v.Paths {
		if p.Problem != "" || p.Encrypted {
			t.Errorf("%s to %s, %s: encrypted %v, problem %q: want an answer in clear", p.From, p.To, p.Family, p.Encrypted, p.Problem)
		}
	}
	for _, e := range v.Exits {
		if e.Problem != "" {
			t.Errorf("%s to outside, %s: %s", e.From, e.Family, e.Problem)
		}
	}
	if v.Internet[lab.Clear] != 0 {
		t.Errorf("%d frames in clear on the internet switch, which carries masqueraded traffic only", v.Internet[lab.Clear])
	}
	if text := strings.Join(v.Problems, "\n"); !strings.Contains(text, "not in the tunnel") {
		t.Errorf("problems do not say so:\n%s", text)
	}
}
