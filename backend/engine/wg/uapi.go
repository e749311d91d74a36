package wg

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// maxLine is the longest line of UAPI that is read, in bytes: a key and its name take 79.
const maxLine = 256

// Serve speaks UAPI (https://www.wireguard.com/xplatform/) with one client until it hangs
// up or asks for something wrong, and closes conn. Its errors are the connection's; what a client does wrong is told to
// the client.
func (d *Device) Serve(conn net.Conn) error {
	defer conn.Close()
	rw := bufio.NewReadWriter(bufio.NewReaderSize(conn, 4096), bufio.NewWriter(conn))
	for {
		op, err := readLine(rw.Reader)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read UAPI request: %w", err)
		}
		switch op {
		case "get=1":
			if _, err = readLine(rw.Reader); err == nil {
				err = d.Describe(rw)
			}
		case "set=1":
			err = d.Configure(rw.Reader)
		default:
			err = fmt.Errorf("UAPI operation %.20q: %w", op, unix.EPROTO)
		}
		if err != nil {
			d.log.Warn().Err(err).Msg("refused configuration")
		}
		refused := err != nil
		if _, err := fmt.Fprintf(rw, "errno=%d\n\n", errno(err)); err != nil {
			return fmt.Errorf("answer UAPI request: %w", err)
		}
		if err := rw.Flush(); err != nil {
			return fmt.Errorf("answer UAPI request: %w", err)
		}
		if refused {
			return nil // where the next request would begin is not known
		}
	}
}

// errno is the number that tells a client what went wrong: negative, as wireguard-go has it.
func errno(err error) int {
	var number unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &number):
		return -int(number)
	}
	return -int(unix.EIO)
}

// readLine returns the next line without its end.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		if len(line) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	if len(line) > maxLine {
		return "", fmt.Errorf("line of %d bytes: %w", len(line), unix.EINVAL)
	}
	return string(line[:len(line)-1]), nil
}

// Configure reads the lines of one "set" request, up to the empty one, and applies them
// all, or none if any is wrong. Errors carry a unix.Errno.
func (d *Device) Configure(r io.Reader) error {
	buffered, ok := r.(*bufio.Reader)
	if !ok {
		buffered = bufio.NewReader(r)
	}
	want, err := parseRequest(buffered)
	if err != nil {
		return err
	}
	defer want.wipe()
	return d.apply(want)
}

// Describe writes the lines that answer a "get" request, without errno. No lock is held
// while it writes: a client that does not read stops nobody else.
func (d *Device) Describe(w io.Writer) error {
	_, err := io.WriteString(w, d.text())
	return err
}

// text returns what Describe writes.
func (d *Device) text() string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var b strings.Builder
	if self := d.self.Load(); self != nil {
		fmt.Fprintf(&b, "private_key=%s\n", self.identity.Private().Hex())
	}
	if port := d.shownPort(); port != 0 {
		fmt.Fprintf(&b, "listen_port=%d\n", port)
	}
	if d.mark != 0 {
		fmt.Fprintf(&b, "fwmark=%d\n", d.mark)
	}
	for _, p := range d.sorted() {
		p.describe(&b)
	}
	return b.String()
}

// sorted returns the peers in a fixed order. The caller holds d.mu.
func (d *Device) sorted() []*peer {
	out := make([]*peer, 0, len(d.peers))
	for _, p := range d.peers {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *peer) int { return slices.Compare(a.key[:], b.key[:]) })
	return out
}

// describe writes one peer. The caller holds Device.mu.
func (p *peer) describe(w *strings.Builder) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(w, "public_key=%s\npreshared_key=%s\nprotocol_version=1\n", p.key.Hex(), p.preshared.Hex())
	if to := p.to.Load(); to != nil {
		fmt.Fprintf(w, "endpoint=%s\n", netip.AddrPortFrom(p.device.named(to.remote.Addr()), to.remote.Port()))
	}
	seconds, nanoseconds := int64(0), 0
	if !p.finishedAt.IsZero() {
		seconds, nanoseconds = p.finishedAt.Unix(), p.finishedAt.Nanosecond()
	}
	fmt.Fprintf(w, "last_handshake_time_sec=%d\nlast_handshake_time_nsec=%d\n", seconds, nanoseconds)
	fmt.Fprintf(w, "tx_bytes=%d\nrx_bytes=%d\npersistent_keepalive_interval=%d\n",
		p.sentBytes.Load(), p.gotBytes.Load(), int(p.keepalive.Seconds()))
	for _, prefix := range p.allowed {
		fmt.Fprintf(w, "allowed_ip=%s\n", prefix)
	}
}

// become makes the device the one with this private key, or nobody with a zero key. The
// caller holds d.mu.
func (d *Device) become(private noise.Key, e *edit) error {
	if old := d.self.Load(); old != nil && !private.IsZero() {
		if same, err := noise.NewIdentity(private); err == nil && same.Public() == old.identity.Public() {
			return nil
		}
	}
	if private.IsZero() {
		d.self.Store(nil)
	} else {
		id, err := noise.NewIdentity(private)
		if err != nil {
			return fmt.Errorf("set private key: %w", unix.EINVAL)
		}
		d.self.Store(&self{identity: id, guard: noise.NewCookieChecker(id.Public())})
		if p := d.peers[id.Public()]; p != nil {
			d.drop(p, e) // a node is not its own peer
		}
	}
	for _, p := range d.peers { // every session was made with the old key
		p.mu.Lock()
		p.forget()
		p.schedule(d.now())
		p.mu.Unlock()
	}
	return nil
}
