package system_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/lab"
)

// probePort is the UDP port of the service between the daemons.
const probePort = 15276

// counters are the counters of a daemon's service, and its judgements, as `loden status --json`
// shows them.
type counters struct {
	Probes struct{ Asked, Replied, Received, Forged, Unknown, Limited uint64 }
	Peers  []struct {
		Node  string
		Paths []judged
	}
}

// judgements returns every path with its state and the start of the state.
func (c counters) judgements() string {
	var out []string
	for _, p := range c.Peers {
		for _, path := range p.Paths {
			out = append(out, fmt.Sprintf("%s %s %s since %s (%s)", p.Node, path.Family, path.State, path.At, path.Reason))
		}
	}
	return strings.Join(out, "\n")
}

func countersOf(t testing.TB, n *lab.Node) counters {
	t.Helper()
	out, err := n.Loden("status", "--json")
	var c counters
	if json.Unmarshal([]byte(out), &c) != nil {
		t.Fatalf("status of %s: %q, %v", n.Name, out, err)
	}
	return c
}

// overlayAddress returns the node's own address of a family in the overlay.
func overlayAddress(t testing.TB, n *lab.Node, f opt.Family) netip.Addr {
	t.Helper()
	env, err := n.Env()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := env.Subnets.Of(f).Get()
	return p.Masked().Addr()
}

// A pod with raw sockets sends what it likes, with the address of its node too. It changes no
// judgement of any node, gets no answer, and sees no datagram of the daemons.
func TestPodWithRawSocketsCanNeitherForgeNorReadNorAmplifyProbes(t *testing.T) {
	l := upPaths(t, lab.Options{Nodes: 3, Engines: []string{"loden", "wireguard-go"}, Flags: []string{"--probe-interval", quick}})
	own, other := l.Nodes[0], l.Nodes[1]
	pod, err := own.Attach(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pod.Detach(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	before := map[string]counters{}
	for _, n := range l.Nodes {
		before[n.Name] = countersOf(t, n)
	}
	sentBefore, receivedBefore := podBytes(t, pod)
	payloads := [][]byte{[]byte("LdN\x01"), append([]byte("LdN\x01"), make([]byte, 68)...), append([]byte("LdN\x01"), make([]byte, 1200)...), []byte("report")}
	sent := 0
	for _, f := range opt.Families() {
		mine, _ := pod.Addrs.Of(f).Get()
		for _, src := range []netip.Addr{mine, overlayAddress(t, own, f), overlayAddress(t, l.Nodes[2], f)} {
			for _, dst := range []netip.Addr{overlayAddress(t, own, f), overlayAddress(t, other, f)} {
				for _, payload := range payloads {
					if err := sendForged(pod, src, dst, payload, 100); err != nil {
						t.Fatal(err)
					}
					sent += 100
				}
			}
		}
		if err := askInClear(pod, mine, overlayAddress(t, other, f)); err != nil {
			t.Error(err)
		}
	}
	sentAfter, receivedAfter := podBytes(t, pod)
	t.Logf("%d datagrams, %d bytes sent by the pod, %d bytes came back", sent, sentAfter-sentBefore, receivedAfter-receivedBefore)
	if receivedAfter-receivedBefore > (sentAfter-sentBefore)/2 {
		t.Error("the nodes answered the pod")
	}
	for _, n := range l.Nodes {
		after := countersOf(t, n)
		if got, want := after.judgements(), before[n.Name].judgements(); got != want {
			t.Errorf("%s judges\n%s\nbefore:\n%s", n.Name, got, want)
		}
		was := before[n.Name].Probes
		t.Logf("%s: before %+v, after %+v", n.Name, was, after.Probes)
		if after.Probes.Replied-was.Replied > after.Probes.Received-was.Received {
			t.Errorf("%s sent more replies than it received messages", n.Name)
		}
	}
	if got := countersOf(t, other).Probes; got.Forged+got.Unknown == 0 {
		t.Errorf("no datagram of the pod arrived at %s: the test proves nothing: %+v", other.Name, got)
	}
	if n, err := overheard(pod, 5*time.Second); err != nil || n > 0 {
		t.Errorf("the pod saw %d datagrams of the daemons, %v", n, err)
	}
}

// podBytes returns the bytes that a pod sent and received.
func podBytes(t testing.TB, pod *lab.Pod) (sent, received uint64) {
	t.Helper()
	out, err := pod.Output("sh", "-c", "cat /proc/net/dev | grep eth0")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(strings.ReplaceAll(out, ":", " "))
	if len(fields) < 10 {
		t.Fatalf("%q", out)
	}
	_, errReceived := fmt.Sscan(fields[1], &received)
	_, errSent := fmt.Sscan(fields[9], &sent)
	if err := errors.Join(errReceived, errSent); err != nil {
		t.Fatal(err)
	}
	return sent, received
}

// sendForged sends a UDP datagram from an address of the pod's choice, several times.
func sendForged(pod *lab.Pod, src, dst netip.Addr, payload []byte, times int) error {
	udp := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(udp, probePort)
	binary.BigEndian.PutUint16(udp[2:], probePort)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(payload)))
	udp = append(udp, payload...)
	family, packet := unix.AF_INET, append([]byte{0: 0x45, 8: 64, 9: unix.IPPROTO_UDP, 19: 0}, udp...)
	var to unix.Sockaddr = &unix.SockaddrInet4{}
	if dst.Is4() { // the kernel fills in length, id and checksum: raw(7)
		copy(packet[12:], src.AsSlice())
		copy(packet[16:], dst.AsSlice())
		to = &unix.SockaddrInet4{Addr: dst.As4()}
	} else {
		binary.BigEndian.PutUint16(udp[6:], checksum(src, dst, udp))
		family, packet = unix.AF_INET6, append([]byte{0: 0x60, 6: unix.IPPROTO_UDP, 7: 64, 39: 0}, udp...)
		binary.BigEndian.PutUint16(packet[4:], uint16(len(udp)))
		copy(packet[8:], src.AsSlice())
		copy(packet[24:], dst.AsSlice())
		to = &unix.SockaddrInet6{Addr: dst.As16()}
	}
	return pod.Do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		for range times {
			if err := unix.Sendto(fd, packet, 0, to); err != nil {
				return fmt.Errorf("send from %s to %s: %w", src, dst, err)
			}
		}
		return nil
	})
}

// checksum returns the checksum of a UDP datagram over IPv6 (RFC 8200, section 8.1).
func checksum(src, dst netip.Addr, udp []byte) uint16 {
	sum := uint32(len(udp)) + unix.IPPROTO_UDP
	for _, part := range [][]byte{src.AsSlice(), dst.AsSlice(), udp} {
		for i, b := range part {
			sum += uint32(b) << (8 * (1 - i%2))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// askInClear asks for the report of a node from the port of the service, and returns an error
// when an answer comes.
func askInClear(pod *lab.Pod, from, to netip.Addr) error {
	return pod.Do(func() error {
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, probePort)))
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, text := range []string{"report", "LdN\x01report", "why"} {
			if _, err := conn.WriteToUDPAddrPort([]byte(text), netip.AddrPortFrom(to, probePort)); err != nil {
				return err
			}
		}
		if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		n, who, err := conn.ReadFromUDPAddrPort(make([]byte, 2000))
		if err == nil {
			return fmt.Errorf("%s answered with %d bytes", who, n)
		}
		return nil
	})
}

// overheard counts the UDP datagrams of the service that a packet socket in the pod sees.
func overheard(pod *lab.Pod, d time.Duration) (n int, err error) {
	return n, pod.Do(func() error {
		const all = 0x0300 // ETH_P_ALL in network order
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		if err != nil {
			return os.NewSyscallError("socket", err)
		}
		defer unix.Close(fd)
		end, frame := time.Now().Add(d), make([]byte, 4096)
		for time.Now().Before(end) {
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}); err != nil {
				return os.NewSyscallError("setsockopt", err)
			}
			size, _, err := unix.Recvfrom(fd, frame, 0)
			if err == nil && strings.Contains(string(frame[:size]), "LdN\x01") {
				n++
			}
		}
		return nil
	})
}
