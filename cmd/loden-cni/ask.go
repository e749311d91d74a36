package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// The status codes of /readyz that the plugin understands. Package net/http would parse the
// answer as well, but linking it costs every ADD a millisecond.
const (
	answerReady    = 200
	answerNotReady = 503
)

// answerLimit bounds the answer in bytes; the daemon's are shorter.
const answerLimit = 8 << 10

// ask asks the daemon whether the node is ready, and for the reason if it is not. It returns an
// error when the daemon gave no answer: the socket is missing, no process listens on it, or the
// time was over.
func ask(socket string, limit time.Duration) (ready bool, reason string, err error) {
	conn, err := net.DialTimeout("unix", socket, limit)
	if err != nil {
		return false, "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return false, "", err
	}
	// HTTP/1.0: the server closes after its answer and does not send it in chunks.
	if _, err := io.WriteString(conn, "GET /readyz HTTP/1.0\r\nHost: loden\r\n\r\n"); err != nil {
		return false, "", err
	}
	answer, err := io.ReadAll(io.LimitReader(conn, answerLimit))
	if err != nil {
		return false, "", err
	}
	return parseAnswer(answer)
}

// parseAnswer takes the HTTP answer to /readyz apart: ready or not, and the first line of the
// body as the reason. A status code other than 200 and 503 is an error.
func parseAnswer(answer []byte) (ready bool, reason string, err error) {
	head, body, ok := bytes.Cut(answer, []byte("\r\n\r\n"))
	line, _, _ := strings.Cut(string(head), "\r\n")
	words := strings.Fields(line)
	if !ok || len(words) < 2 || !strings.HasPrefix(words[0], "HTTP/1.") {
		return false, "", fmt.Errorf("daemon's answer is not HTTP: %.40q", answer)
	}
	code, err := strconv.Atoi(words[1])
	if err != nil || code != answerReady && code != answerNotReady {
		return false, "", fmt.Errorf("daemon's answer has an unknown status: %.40q", line)
	}
	reason, _, _ = strings.Cut(strings.TrimSpace(string(body)), "\n")
	if reason == "" {
		reason = "the daemon is not ready and gives no reason; see 'loden status' on this node"
	}
	return code == answerReady, reason, nil
}
