package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine/wg"
	"github.com/loden-net/loden/backend/engine/wg/state"
)

// maxFiles is how many descriptors a parcel may have.
const maxFiles = 4 + maxQueues + 1

// belongings are the open files of an engine, by name.
type belongings map[string]*os.File

// The names.
const (
	lockBelonging = "lock" // the open file description holds the lock, so the lock goes with it
	uapiBelonging = "uapi" // listening
	tunBelonging  = "tun"  // the first queue; the others have their numbers behind it, from 1
	outBelonging  = "tun-writer"
	udp4Belonging = "udp4"
	udp6Belonging = "udp6"
)

// queueBelonging is the name of queue n of the TUN device.
func queueBelonging(n int) string {
	if n == 0 {
		return tunBelonging
	}
	return tunBelonging + strconv.Itoa(n)
}

// add names the files of a data path.
func (b belongings) add(files wg.Files) {
	for i, q := range files.TUN.Queues {
		b[queueBelonging(i)] = q
	}
	b[outBelonging], b[udp4Belonging], b[udp6Belonging] = files.TUN.Writer, files.UDP4, files.UDP6
}

// dataPath returns the files that add has named: all queues that there are, whatever number
// this engine would make.
func (b belongings) dataPath() wg.Files {
	files := wg.Files{UDP4: b[udp4Belonging], UDP6: b[udp6Belonging]}
	files.TUN.Writer = b[outBelonging]
	for q := b[tunBelonging]; q != nil; q = b[queueBelonging(len(files.TUN.Queues))] {
		files.TUN.Queues = append(files.TUN.Queues, q)
	}
	return files
}

// close closes what is open. What is passed on goes on.
func (b belongings) close() {
	for _, f := range b {
		if f != nil {
			_ = f.Close()
		}
	}
}

// sendParcel sends p and the descriptors of files with it.
func sendParcel(conn *net.UnixConn, p parcel, files belongings) error {
	var fds []int
	for name, f := range files {
		if f == nil {
			continue
		}
		raw, err := f.SyscallConn() // not Fd, which would make the description blocking
		if err != nil {
			return err
		}
		if err := raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) }); err != nil {
			return err
		}
		p.Files = append(p.Files, name)
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = conn.WriteMsgUnix(b, rights, nil)
	return err
}

// place sends an order and reads the parcel that answers it. The caller closes the files,
// also after an error.
func place(conn *net.UnixConn, o order) (p parcel, files belongings, err error) {
	b, err := json.Marshal(o)
	if err != nil {
		return p, nil, err
	}
	if _, err := conn.Write(b); err != nil {
		return p, nil, fmt.Errorf("send order: %w", err)
	}
	b, rights := make([]byte, maxHeader), make([]byte, unix.CmsgSpace(4*maxFiles))
	n, nrights, _, _, err := conn.ReadMsgUnix(b, rights)
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return p, nil, fmt.Errorf("read answer: %w", err)
	}
	received, err := receivedFiles(rights[:nrights])
	if err == nil {
		p, err = parseParcel(b[:n], len(received))
	}
	if err != nil {
		for _, f := range received {
			_ = f.Close()
		}
		return p, nil, fmt.Errorf("read answer: %w", err)
	}
	files = belongings{}
	for i, name := range p.Files {
		files[name] = received[i]
	}
	return p, files, nil
}

// parseParcel reads a parcel that came with a number of descriptors.
func parseParcel(b []byte, descriptors int) (p parcel, err error) {
	if err := json.Unmarshal(b, &p); err != nil {
		return p, err
	}
	seen := map[string]bool{}
	for _, name := range p.Files {
		seen[name] = true
	}
	if len(p.Files) != descriptors || len(seen) != descriptors || p.Size < 0 || p.Size > state.MaxSize {
		return p, errors.New("malformed parcel")
	}
	return p, nil
}

// receivedFiles returns the descriptors of a control message. ReadMsgUnix has seen to it
// that they are closed on exec.
func receivedFiles(rights []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials, which nobody asked for
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return files, nil
}

// sendState sends text in packets that a socket takes.
func sendState(conn *net.UnixConn, text []byte) error {
	for len(text) > 0 {
		n := min(chunk, len(text))
		if _, err := conn.Write(text[:n]); err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}

// readState reads size bytes.
func readState(conn *net.UnixConn, size int) ([]byte, error) {
	text := make([]byte, size)
	for at := 0; at < size; {
		n, err := conn.Read(text[at:])
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			clear(text)
			return nil, fmt.Errorf("read state: %w", err)
		}
		at += n
	}
	return text, nil
}

// The words that end a hand-over.
const (
	have  = "have"  // the new one has read everything
	yours = "yours" // the old one will not touch it again
)

func say(conn *net.UnixConn, word string) error {
	_, err := conn.Write([]byte(word))
	return err
}

func hear(conn *net.UnixConn, word string) error {
	b := make([]byte, len(word)+1)
	n, err := conn.Read(b)
	if err == nil && string(b[:n]) != word {
		err = fmt.Errorf("%q instead of %q", b[:n], word)
	}
	return err
}
