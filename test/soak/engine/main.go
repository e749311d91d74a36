// Command engine is an engine as `loden engine` runs it, that can be asked how it is. It is
// for the soak test alone, which builds it with and without the race detector.
//
//	engine KIND IFACE
//
// On SIGUSR1 it collects garbage and prints its goroutines and heap as a line of JSON. On
// SIGTERM it ends, and fails if a goroutine is left.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/loden-net/loden/backend/engine"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "engine:", err)
		os.Exit(1)
	}
}

// run runs the engine until it is told to end.
func run(kind, iface string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		report(ctx, asked)
	}()
	err := engine.Run(ctx, engine.Options{
		Iface: iface, Kind: engine.Kind(kind), RunDir: "/run/loden",
		Log: zerolog.New(os.Stderr).Level(zerolog.WarnLevel),
	})
	stop()
	signal.Stop(asked)
	<-ended
	if err != nil {
		return err
	}
	return goleak.Find()
}

// report answers every question until ctx ends.
func report(ctx context.Context, asked <-chan os.Signal) {
	out := json.NewEncoder(os.Stdout)
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
			runtime.GC()
			runtime.GC() // memory that finalizers have released
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			_ = out.Encode(map[string]uint64{"goroutines": uint64(runtime.NumGoroutine()), "heap": m.HeapAlloc})
		}
	}
}
