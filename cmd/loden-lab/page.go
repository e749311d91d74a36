package main

import (
	"context"
	"fmt"
	"net"
	"os"

	"github.com/loden-net/loden/test/lab"
)

// pageAddress is where node1 serves its page, inside its namespace.
const pageAddress = "127.0.0.1:8081"

// pageFlags are the flags of a lab that a person looks at: node1 serves its page, and every node
// probes its peers each second.
func (o *options) pageFlags(s *lab.Options) {
	if o.check || o.page == "" || o.nodes > tableNodes {
		return
	}
	s.First = []string{"--listen-address", pageAddress}
	s.Flags = append([]string{"--probe-interval", "1s"}, s.Flags...) // flags of the user come later and win
}

// openPage listens on the machine's loopback. It runs outside the sandbox. Without a listener the lab
// has no page.
func (o *options) openPage() []*os.File {
	if o.check || o.page == "" || o.nodes > tableNodes {
		return nil
	}
	listener, err := net.Listen("tcp", o.page)
	if err != nil {
		fmt.Fprintf(os.Stderr, "loden-lab: no page: %v (--page has another address)\n", err)
		return nil
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File() // Listen returns this type for "tcp"
	if err != nil {
		fmt.Fprintf(os.Stderr, "loden-lab: no page: %v\n", err)
		return nil
	}
	return []*os.File{file}
}

// servePage passes connections to the page until ctx is done, and returns the line that names it.
func servePage(ctx context.Context, l *lab.Lab, files []*os.File) (line string, err error) {
	if len(files) == 0 {
		return "", nil
	}
	listener, err := net.FileListener(files[0])
	if err != nil {
		return "", fmt.Errorf("serve the page: %w", err)
	}
	go func() { _ = l.Nodes[0].Relay(ctx, listener, pageAddress) }() // it ends with ctx
	return fmt.Sprintf("\nThe page of node1: http://%s/\n", listener.Addr()), nil
}
