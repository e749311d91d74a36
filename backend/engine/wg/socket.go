package wg

import "net/netip"

// tunnel is the TUN device: packets in plain.
type tunnel interface {
	// queues returns what is read, each by one goroutine.
	queues() []queue
	// write hands one packet over, given in pieces, virtio header first.
	write(pieces [][]byte) error
	// link looks at the interface.
	link() (link, error)
	// hush makes every read return os.ErrClosed, now and later. Writing goes on.
	hush()
	close() error
}

// queue brings a part of a TUN device's packets: those of a flow stay in order.
type queue interface {
	// read waits for one packet and reads it behind its virtio header.
	read(p []byte) (int, error)
	// tryRead is read for a packet that is there already; 0 when none is.
	tryRead(p []byte) (int, error)
}

// binder opens the device's sockets, and knows the interfaces beside which it does.
type binder interface {
	// open opens one socket per address family the machine has. With port 0 the system
	// chooses one.
	open(port uint16, mark uint32) (bound, error)
	interfaceIndex(name string) (index uint32, known bool)
	interfaceName(index uint32) (name string, known bool)
}

// bound is an open pair of sockets; one of them may be missing.
type bound struct {
	v4, v6 socket // nil: the machine has not got the family
	port   uint16
}

// all returns the sockets there are.
func (b bound) all() (out []socket) {
	for _, s := range []socket{b.v4, b.v6} {
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

// socket is one UDP socket: packets encrypted.
type socket interface {
	// receive waits for datagrams and fills in as many as are there.
	receive(in []incoming) (int, error)
	// send sends every message, as far as the network lets it; an error is the last one.
	send(out []outgoing) error
	setMark(mark uint32) error
	// hush makes every receive return os.ErrClosed, now and later. Sending goes on.
	hush()
	close() error
}

// incoming is a received datagram, or several of one sender that the kernel joined.
type incoming struct {
	buf     []byte // the whole buffer
	n       int    // bytes of it that were received
	segment int    // bytes of each datagram but the last; n when there is one
	from    netip.AddrPort
	local   source
	ecn     uint8 // congestion mark of the outer header
}

// outgoing is a datagram, or several of equal size to one address.
type outgoing struct {
	peer    *peer
	to      *endpoint
	pieces  [][]byte // together the payload of the message
	segment int      // bytes of each datagram but the last
	size    int      // bytes in all
	count   int      // datagrams
	closed  bool     // the last one was shorter: none may follow
	ecn     uint8
}

// source is the local side of an endpoint: the address its datagrams arrived at. The zero
// value leaves the choice to the routing table.
type source = netip.Addr

// endpoint is where a peer is reached. Immutable: peers hold a pointer and replace it.
type endpoint struct {
	remote netip.AddrPort
	local  source
}
