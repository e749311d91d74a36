package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"
)

// unitsNet is a host with a TUN interface and a wire into nowhere, where frames are dropped
// as addressed to another host: sockets, routing and drivers have their cost, receivers none.
const unitsNet = `
link set t0 mtu 1420 up
addr add 10.1.0.1/24 dev t0
link add d0 type veth peer name d1
link set d0 up
link set d1 up
addr add 10.2.0.1/24 dev d0
neigh add 10.2.0.2 lladdr 02:00:00:00:00:09 dev d0
route add 10.3.0.0/24 via 10.2.0.2`

const outerSegment = podMTU + 32 // a WireGuard transport message with a packet in it

// units prints the cost of each unavoidable step of a super-packet, in µs. It runs alone on
// a host of its own.
func units() error {
	runtime.LockOSThread()
	tun, err := openTUN("t0")
	if err != nil {
		return err
	}
	for line := range strings.Lines(strings.TrimSpace(unitsNet)) {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.TrimSpace(line), err, out)
		}
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return err
	}
	return errors.Join(cryptoUnits(), socketUnits(), tunUnits(tun))
}

// cryptoUnits seals and opens the packets of a super-packet, each by itself.
func cryptoUnits() error {
	aead, err := chacha20poly1305.New(make([]byte, chacha20poly1305.KeySize))
	if err != nil {
		return err
	}
	nonce := make([]byte, aead.NonceSize())
	plain, sealed := make([]byte, podMTU), make([]byte, 0, podMTU+aead.Overhead())
	sealed = aead.Seal(sealed, nonce, plain, nil)
	out := make([]byte, 0, podMTU)
	fmt.Printf("seal µs=%.2f\n", superSegments*best(2000, func() { aead.Seal(sealed[:0], nonce, plain, nil) }))
	var failed error
	fmt.Printf("open µs=%.2f\n", superSegments*best(2000, func() {
		if _, err := aead.Open(out, nonce, sealed, nil); err != nil {
			failed = err
		}
	}))
	return failed
}

// segmentation asks the kernel to cut a send into segments.
func segmentation(size int) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(b[8:], unix.SOL_UDP)
	binary.NativeEndian.PutUint32(b[12:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(b[16:], uint16(size))
	return b
}

// socketUnits sends and receives trains of datagrams, scaled to a super-packet's segments.
func socketUnits() error {
	const train = 45 // as many as fit into a send
	out, err := net.Dial("udp4", "10.2.0.2:9")
	if err != nil {
		return err
	}
	defer out.Close()
	in, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer in.Close()
	to, err := net.Dial("udp4", in.LocalAddr().String())
	if err != nil {
		return err
	}
	defer to.Close()
	data, control := make([]byte, train*outerSegment), segmentation(outerSegment)
	var failed error
	send := func(c net.Conn) {
		if _, _, err := c.(*net.UDPConn).WriteMsgUDP(data, control, nil); err != nil {
			failed = err
		}
	}
	scale := float64(superSegments) / train
	fmt.Printf("UDP send µs=%.2f\n", scale*best(500, func() { send(out) }))
	raw, err := in.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	err = raw.Control(func(fd uintptr) {
		failed = errors.Join(failed, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
			unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1))
		fmt.Printf("UDP receive µs=%.2f\n", scale*bestDrain(func() {
			for range 40 {
				send(to)
			}
		}, func() (n int) {
			for {
				if _, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT); err != nil {
					return n
				}
				n++
			}
		}))
	})
	return errors.Join(err, failed)
}

func openTUN(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return 0, err
	}
	offloads := unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6
	return fd, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads)
}

// tunUnits reads super-packets from the TUN interface, and writes a super-packet that is forwarded.
func tunUnits(tun int) error {
	out, err := net.Dial("udp4", "10.1.0.2:9")
	if err != nil {
		return err
	}
	defer out.Close()
	data, control := make([]byte, superSegments*(podMTU-28)), segmentation(podMTU-28)
	buf := make([]byte, 1<<17)
	drain := func() (n int) {
		for {
			if _, err := unix.Read(tun, buf); err != nil {
				return n
			}
			n++
		}
	}
	drain()
	var failed error
	fmt.Printf("TUN read µs=%.2f\n", bestDrain(func() {
		for range 40 {
			if _, _, err := out.(*net.UDPConn).WriteMsgUDP(data, control, nil); err != nil && !errors.Is(err, syscall.ENOBUFS) {
				failed = err
			}
		}
	}, drain))
	super := superPacket()
	fmt.Printf("TUN write µs=%.2f\n", best(500, func() {
		if _, err := unix.Write(tun, super); err != nil {
			failed = err
		}
	}))
	return failed
}

// superPacket is TCP from a pod, with its vnet header.
func superPacket() []byte {
	const vnet, headers = 10, 40
	b := make([]byte, vnet+headers+superBytes)
	b[0], b[1] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM, unix.VIRTIO_NET_HDR_GSO_TCPV4
	binary.NativeEndian.PutUint16(b[2:], headers)
	binary.NativeEndian.PutUint16(b[4:], superPayload)
	binary.NativeEndian.PutUint16(b[6:], 20)
	binary.NativeEndian.PutUint16(b[8:], 16)
	ip := b[vnet:]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(ip[2:], headers+superBytes)
	copy(ip[12:], []byte{10, 1, 0, 2, 10, 3, 0, 2})
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum&0xffff + sum>>16
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(ip[20:], 1000)
	binary.BigEndian.PutUint16(ip[22:], 2000)
	ip[32], ip[33] = 0x50, 0x10 // twenty bytes of header, ACK
	return b
}
