package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

const (
	echoPort  = "7000"
	countPort = "7001"
	sinkPort  = 7002
	batch     = 32 // datagrams of a system call
)

// helper runs a small program of this command inside a pod or a host.
func helper(verb string, args []string) error {
	switch {
	case verb == "count":
		return serveCount()
	case verb == "rr" && len(args) == 2:
		return echoes(args[0], args[1])
	case verb == "ping" && len(args) == 3:
		return runPings(args[0], args[1], args[2])
	case verb == "units":
		return units()
	case verb == "udp" && len(args) == 2:
		return flood(args[0], args[1])
	case verb == "configure" && len(args) == 2:
		return configurePeers(args[0], args[1])
	}
	return fmt.Errorf("no helper %q", verb)
}

// serveCount counts UDP datagrams and tells the count to each TCP client; on another port
// it echoes TCP.
func serveCount() error {
	sink, err := net.ListenUDP("udp", &net.UDPAddr{Port: sinkPort})
	if err != nil {
		return err
	}
	_ = sink.SetReadBuffer(4 << 20)
	var got atomic.Uint64
	go count(sink, &got)
	go accept(":"+countPort, func(c net.Conn) {
		for b := make([]byte, 1); ; {
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			_ = binary.Write(c, binary.BigEndian, got.Load())
		}
	})
	return accept(":"+echoPort, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

func accept(addr string, handle func(net.Conn)) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			handle(c)
		}()
	}
}

// echoes sends single bytes over TCP, each after the last came back, and prints p50 and p99 in µs.
func echoes(host, length string) error {
	limit, err := time.ParseDuration(length)
	if err != nil {
		return err
	}
	c, err := net.DialTimeout("tcp", net.JoinHostPort(host, echoPort), 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	var all []time.Duration
	b := []byte{1}
	for end := time.Now().Add(limit); time.Now().Before(end); {
		began := time.Now()
		if _, err := c.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	fmt.Printf("%.1f %.1f\n", µs(part(all, 0.5)), µs(part(all, 0.99)))
	return nil
}

// part returns the value below which a part of the sorted values is.
func part(sorted []time.Duration, p float64) time.Duration {
	return sorted[int(p*float64(len(sorted)-1))]
}

func µs(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

func count(sink *net.UDPConn, got *atomic.Uint64) {
	in := ipv6.NewPacketConn(sink)
	messages := make([]ipv6.Message, batch)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, 2048)}
	}
	for {
		n, err := in.ReadBatch(messages, 0)
		if err != nil {
			return
		}
		got.Add(uint64(n))
	}
}

// flood sends 64-byte datagrams as fast as it can and prints how many arrived and how many
// were sent, in thousands per second.
func flood(host, length string) error {
	limit, err := time.ParseDuration(length)
	if err != nil {
		return err
	}
	counter, err := net.Dial("tcp", net.JoinHostPort(host, countPort))
	if err != nil {
		return err
	}
	defer counter.Close()
	before, err := ask(counter)
	if err != nil {
		return err
	}
	conn, err := net.Dial("udp", net.JoinHostPort(host, fmt.Sprint(sinkPort)))
	if err != nil {
		return err
	}
	defer conn.Close()
	out := ipv4.NewPacketConn(conn.(*net.UDPConn)) // WriteBatch of a connected socket: both families
	messages := make([]ipv4.Message, batch)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, 64)}
	}
	began := time.Now()
	sent := 0
	for time.Since(began) < limit {
		if n, err := out.WriteBatch(messages, 0); err == nil { // refused now and then: the buffer is full
			sent += n
		}
	}
	took := time.Since(began).Seconds()
	time.Sleep(300 * time.Millisecond) // for datagrams under way
	after, err := ask(counter)
	fmt.Printf("%.1f %.1f\n", float64(after-before)/took/1000, float64(sent)/took/1000)
	return err
}

// ask reads the counter of the other side.
func ask(c net.Conn) (n uint64, err error) {
	if _, err := c.Write([]byte{0}); err != nil {
		return 0, err
	}
	err = binary.Read(c, binary.BigEndian, &n)
	return n, err
}
