package backend_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/loden-net/loden/backend"
	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config"
	"github.com/loden-net/loden/config/opt"
	"github.com/loden-net/loden/test/sandbox/sandboxtest"
)

// The test binary is three programs: the tests, the engine that a Device starts, and a
// node: a process that owns a Device and follows requests, and can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case "engine":
			exit(runEngine(os.Args[2:]))
		case "node":
			exit(runNode(os.Args[2]))
		case "watch":
			exit(runWatch())
		}
	}
	sandboxtest.Main(m)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runEngine is `loden engine`.
func runEngine(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	flags := flag.NewFlagSet("engine", flag.ContinueOnError)
	kind := flags.String("engine", "", "")
	runDir := flags.String("run-dir", "", "")
	fd := flags.Int("ready-fd", 0, "")
	queues := flags.Int("queues", 0, "")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	o := engine.Options{Iface: args[0], Kind: engine.Kind(*kind), RunDir: *runDir, Queues: *queues, Log: zerolog.New(os.Stderr)}
	if *fd != 0 {
		syscall.CloseOnExec(*fd)
		o.Ready = os.NewFile(uintptr(*fd), "ready")
	}
	o.Relay = o.Ready == nil
	return engine.Run(ctx, o)
}

const (
	iface  = "loden0"
	runDir = "/run/loden"
)

// request is an order to a node process; reply is the result.
type (
	request struct {
		Op    string                     // plan, apply, status, check
		Want  opt.Option[backend.Config] // for plan and apply
		PSK   []byte                     // the network's pre-shared key, which a Config does not encode
		Limit time.Duration              // 0: a minute
	}
	reply struct {
		Changes []string
		Status  backend.Status
		Error   string
	}
)

// runNode serves requests from standard input until it ends.
func runNode(engineName string) error {
	key, _, err := backend.OpenKey("/var/lib/loden")
	if err != nil {
		return err
	}
	d, err := backend.Open(backend.Options{Name: iface, Engine: engineName, RunDir: runDir, Log: zerolog.New(os.Stderr)})
	if err != nil {
		return err
	}
	defer d.Close()
	in, out := json.NewDecoder(bufio.NewReader(os.Stdin)), json.NewEncoder(os.Stdout)
	for {
		var r request
		if in.Decode(&r) != nil {
			return nil
		}
		if err := out.Encode(serveNode(d, key, r)); err != nil {
			return err
		}
	}
}

func serveNode(d *backend.Device, key backend.PrivateKey, r request) (out reply) {
	limit := time.Minute
	if r.Limit != 0 {
		limit = r.Limit
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var err error
	switch r.Op {
	case "status":
		out.Status, err = d.Status(ctx)
	case "check":
		err = d.Check(ctx)
	default:
		if c, ok := r.Want.Get(); ok && len(r.PSK) == 32 {
			c.PresharedKey = opt.Some(config.PresharedKey(r.PSK))
			r.Want = opt.Some(c)
		}
		changes, failed := d.Changes(ctx, key, r.Want)
		err = failed
		for _, c := range changes {
			out.Changes = append(out.Changes, c.String())
			if r.Op == "apply" {
				err = errors.Join(err, c.Run(ctx))
			}
		}
	}
	if err != nil {
		out.Error = err.Error()
	}
	return out
}

// runWatch prints a line for each notification.
func runWatch() error {
	d, err := backend.Open(backend.Options{Name: iface, RunDir: runDir, Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	defer d.Close()
	fmt.Println("watching")
	return d.Watch(context.Background(), func() { fmt.Println("changed") })
}
