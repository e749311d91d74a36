// Package uapi owns the text form of WireGuard's configuration protocol, which wg(8) speaks
// (https://www.wireguard.com/xplatform/): it serves a connection, parses "set" requests and
// formats the answer to "get". It knows nothing of devices: a Handler carries requests out.
package uapi

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// maxLine is the length of the longest line that is read, in bytes: a key and its name take 79.
const maxLine = 256

// Handler carries out the operations of a connection. Its errors may carry a unix.Errno, which
// the client gets.
type Handler interface {
	// Configure reads a "set" request up to its empty line and carries it out.
	Configure(r io.Reader) error
	// Describe writes the lines that answer a "get" request.
	Describe(w io.Writer) error
}

// Serve answers the requests of a client until the client hangs up or sends a wrong request, and
// closes c. A wrong request is answered and logged; the error that Serve returns is the
// connection's.
func Serve(c net.Conn, h Handler, log zerolog.Logger) error {
	defer c.Close()
	rw := bufio.NewReadWriter(bufio.NewReaderSize(c, 4096), bufio.NewWriter(c))
	for {
		operation, err := readLine(rw.Reader)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read UAPI request: %w", err)
		}
		switch operation {
		case "get=1":
			if _, err = readLine(rw.Reader); err == nil {
				err = h.Describe(rw)
			}
		case "set=1":
			err = h.Configure(rw.Reader)
		default:
			err = fmt.Errorf("UAPI operation %.20q: %w", operation, unix.EPROTO)
		}
		if err != nil {
			log.Warn().Err(err).Msg("refused configuration")
		}
		refused := err != nil
		if _, err := fmt.Fprintf(rw, "errno=%d\n\n", errno(err)); err != nil {
			return fmt.Errorf("answer UAPI request: %w", err)
		}
		if err := rw.Flush(); err != nil {
			return fmt.Errorf("answer UAPI request: %w", err)
		}
		if refused {
			return nil // the start of the next request is unknown
		}
	}
}

// errno returns the number that tells a client the cause of an error: negative, as wireguard-go
// has it.
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
