package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config"
)

// engineCommand runs the userspace data plane in the foreground. `loden run` starts it by
// itself where the kernel has no WireGuard, and hands it a pipe to say when it is ready.
func engineCommand(flags *config.Node) *cobra.Command {
	var kind, noOffload string
	var readyFD int
	var fixedProcessors bool
	cmd := &cobra.Command{
		Use:   "engine IFACE",
		Short: "Run the userspace WireGuard engine for an interface, in the foreground",
		Long: "Run the userspace WireGuard engine for an interface, in the foreground.\n\n" +
			"It owns a TUN device, which outlives it with its addresses and routes, and is configured over the standard\n" +
			"socket, so that `wg show` works. `loden run` starts one by itself where the kernel has no WireGuard. It ends on\n" +
			"SIGTERM, or when the interface is deleted.\n\n" +
			"When an engine runs for the interface already, the new engine takes its place. From an engine of the kind `loden` to\n" +
			"another it takes over TUN device, sockets and sessions without losing a packet. The old engine stands by, and takes\n" +
			"its place back when the new engine ends first.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			log, err := newLogger(flags, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			ready, err := readyPipe(readyFD)
			if err != nil {
				return usageError(err)
			}
			off, err := engine.ParseOffloads(noOffload)
			if err != nil {
				return usageError(fmt.Errorf("--no-offload: %w", err))
			}
			return engine.Run(cmd.Context(), engine.Options{
				Iface: args[0], Kind: engine.Kind(kind), RunDir: flags.RunDir, Ready: ready,
				Log:   log.With().Str("interface", args[0]).Logger(),
				Relay: ready == nil, // an engine of `loden run` is not started again when it ends
				Alone: true,

				NoOffload: off, FixedProcessors: fixedProcessors,
			})
		},
	}
	cmd.Flags().StringVar(&kind, "engine", string(engine.DefaultKind), "which engine: wireguard-go, loden")
	cmd.Flags().StringVar(&flags.RunDir, "run-dir", "/run/loden", "directory of the engine's lock")
	cmd.Flags().StringVar(&noOffload, "no-offload", "",
		"offloads that are turned off, for kernels and network cards that corrupt packets: tun-rx, tun-tx, udp-rx, udp-tx, separated by commas")
	cmd.Flags().BoolVar(&fixedProcessors, "fixed-processors", false, "use all processors also while packets come singly, which delays them")
	cmd.Flags().IntVar(&readyFD, "ready-fd", 0, "file descriptor to write to when ready")
	_ = cmd.Flags().MarkHidden("ready-fd") // the flag was defined on the line above
	return cmd
}

// readyPipe returns the pipe that was inherited as a file descriptor; nil for 0.
func readyPipe(fd int) (io.WriteCloser, error) {
	if fd == 0 {
		return nil, nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("--ready-fd %d: %w", fd, err)
	}
	return os.NewFile(uintptr(fd), "ready"), nil
}
