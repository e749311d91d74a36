// Command pod is the program in the pods of the Kubernetes test. It is a test's program: it does
// not know Loden.
//
//	pod pause              # waits, as a pod's first container
//	pod serve              # HTTP at 8080 answers the host's name, UDP at 7000 echoes
//	pod get URL            # prints the answer
//	pod stream HOST RATE   # numbered packets to HOST's echo until its input ends, then a Flow
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

const (
	webPort  = "8080"
	echoPort = "7000"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pod:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: pod pause|serve|get|stream")
	}
	switch verb, rest := args[0], args[1:]; {
	case verb == "pause":
		<-ctx.Done()
		return nil
	case verb == "serve":
		return serve(ctx)
	case verb == "get" && len(rest) == 1:
		return get(rest[0], os.Stdout)
	case verb == "stream" && len(rest) == 2:
		rate, err := strconv.Atoi(rest[1])
		if err != nil || rate < 1 {
			return fmt.Errorf("rate %q: not a number of packets per second", rest[1])
		}
		ctx, cancel := context.WithCancel(ctx)
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin) // however it ends
			cancel()
		}()
		flow, err := Stream(ctx, net.JoinHostPort(rest[0], echoPort), rate)
		return errors.Join(err, json.NewEncoder(os.Stdout).Encode(flow))
	}
	return fmt.Errorf("cannot %v", args)
}

// serve answers until ctx is done.
func serve(ctx context.Context) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	echo, err := net.ListenPacket("udp", ":"+echoPort)
	if err != nil {
		return err
	}
	web := &http.Server{Addr: ":" + webPort, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(
		func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) })}
	ended := make(chan error, 2)
	go func() { ended <- Echo(echo) }()
	go func() { ended <- web.ListenAndServe() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
	}
	return errors.Join(err, echo.Close(), web.Close())
}

// get prints the answer of a URL. Every call is a connection of its own.
func get(url string, w io.Writer) error {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, answer.Status)
	}
	_, err = io.Copy(w, answer.Body)
	return err
}
