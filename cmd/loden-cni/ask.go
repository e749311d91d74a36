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

// The answers of /readyz that are understood. Package net/http would say the same, but its
// start costs every ADD a millisecond.
const (
	answerReady    = 200
	answerNotReady = 503
)

// answerLimit is more than the daemon has to say, in bytes.
const answerLimit = 8 << 10

// ask asks the daemon whether the node is ready, and why not. An error is that there was
// no answer: no socket, nobody behind it, or nothing heard within the time.
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

// parseAnswer takes an HTTP answer to /readyz apart: whether it says ready, and the first
// line of the body. Anything but 200 and 503 is no answer.
func parseAnswer(answer []byte) (ready bool, reason string, err error) {
	head, body, ok := bytes.Cut(answer, []byte("\r\n\r\n"))
	line, _, _ := strings.Cut(string(head), "\r\n")
	words := strings.Fields(line)
	if !ok || len(words) < 2 || !strings.HasPrefix(words[0], "HTTP/1.") {
		return false, "", fmt.Errorf("answer is not HTTP: %.40q", answer)
	}
	code, err := strconv.Atoi(words[1])
	if err != nil || code != answerReady && code != answerNotReady {
		return false, "", fmt.Errorf("answer is %.40q", line)
	}
	reason, _, _ = strings.Cut(strings.TrimSpace(string(body)), "\n")
	if reason == "" {
		reason = "not ready, and the daemon does not say why"
	}
	return code == answerReady, reason, nil
}
