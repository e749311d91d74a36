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

	"github.com/loden-net/loden/backend/engine/fd"
	"github.com/loden-net/loden/backend/engine/wg"
	"github.com/loden-net/loden/backend/engine/wg/state"
)

// maxFiles is how many descriptors a reply may carry.
const maxFiles = 4 + maxQueues + 1

// namedFiles are the open files of an engine, by their names in a reply. A nil file is absent.
type namedFiles map[string]*os.File

// The names, as they are written on the socket.
const (
	lockFileName   = "lock" // the open file description holds the lock, so the lock goes with it
	uapiFileName   = "uapi" // listening
	tunFileName    = "tun"  // the first queue; further queues have their numbers behind it, from 1
	writerFileName = "tun-writer"
	udp4FileName   = "udp4"
	udp6FileName   = "udp6"
)

// queueFileName is the name of queue n of the TUN device.
func queueFileName(n int) string {
	if n == 0 {
		return tunFileName
	}
	return tunFileName + strconv.Itoa(n)
}

// add names the files of a data path.
func (f namedFiles) add(files wg.Files) {
	for i, q := range files.TUN.Queues {
		f[queueFileName(i)] = q
	}
	f[writerFileName], f[udp4FileName], f[udp6FileName] = files.TUN.Writer, files.UDP4, files.UDP6
}

// dataPath returns the files that add has named: every queue of the device, also when this
// engine would have made another number of queues.
func (f namedFiles) dataPath() wg.Files {
	files := wg.Files{UDP4: f[udp4FileName], UDP6: f[udp6FileName]}
	files.TUN.Writer = f[writerFileName]
	for q := f[tunFileName]; q != nil; q = f[queueFileName(len(files.TUN.Queues))] {
		files.TUN.Queues = append(files.TUN.Queues, q)
	}
	return files
}

// close closes this process's descriptors. Copies that were sent to another process stay open.
func (f namedFiles) close() {
	for _, file := range f {
		if file != nil {
			_ = file.Close()
		}
	}
}

// sendReply sends r, and the descriptors of files with it.
func sendReply(conn *net.UnixConn, r reply, files namedFiles) error {
	var fds []int
	for name, f := range files {
		if f == nil {
			continue
		}
		if err := fd.Control(f, func(fd int) error { fds = append(fds, fd); return nil }); err != nil {
			return err
		}
		r.Files = append(r.Files, name)
	}
	b, err := json.Marshal(r)
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

// call sends a request and reads its reply. The caller closes the files, also after an error.
func call(conn *net.UnixConn, r request) (answer reply, files namedFiles, err error) {
	b, err := json.Marshal(r)
	if err != nil {
		return answer, nil, err
	}
	if _, err := conn.Write(b); err != nil {
		return answer, nil, fmt.Errorf("send request: %w", err)
	}
	b, rights := make([]byte, maxHeader), make([]byte, unix.CmsgSpace(4*maxFiles))
	n, nrights, _, _, err := conn.ReadMsgUnix(b, rights)
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return answer, nil, fmt.Errorf("read reply: %w", err)
	}
	inherited, err := inheritedFiles(rights[:nrights])
	if err == nil {
		answer, err = parseReply(b[:n], len(inherited))
	}
	if err != nil {
		for _, f := range inherited {
			_ = f.Close()
		}
		return answer, nil, fmt.Errorf("read reply: %w", err)
	}
	files = namedFiles{}
	for i, name := range answer.Files {
		files[name] = inherited[i]
	}
	return answer, files, nil
}

// parseReply reads a reply that came with a number of descriptors.
func parseReply(b []byte, descriptors int) (r reply, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return r, err
	}
	seen := map[string]bool{}
	for _, name := range r.Files {
		seen[name] = true
	}
	if len(r.Files) != descriptors || len(seen) != descriptors || r.Size < 0 || r.Size > state.MaxSize {
		return r, errors.New("malformed reply")
	}
	return r, nil
}

// inheritedFiles returns the descriptors of a control message. ReadMsgUnix has marked them as
// closed on exec.
func inheritedFiles(rights []byte) (files []*os.File, err error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue // credentials, which this process has not asked for
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "handed over"))
		}
	}
	return files, nil
}

// sendState sends text in packets of a size that the socket accepts.
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

// The words that end a hand-over, as they are written on the socket.
const (
	wordAcknowledge = "have"  // the new engine has read files and state
	wordCommit      = "yours" // the old engine will not use them again
)

func sendWord(conn *net.UnixConn, word string) error {
	_, err := conn.Write([]byte(word))
	return err
}

func expectWord(conn *net.UnixConn, word string) error {
	b := make([]byte, len(word)+1)
	n, err := conn.Read(b)
	if err == nil && string(b[:n]) != word {
		err = fmt.Errorf("got %q, want %q", b[:n], word)
	}
	return err
}
