// Command loden-cni is the CNI plugin of a Loden node. It owns a single step: it reads the
// node's subnet from subnet.env and hands pods over to a reference plugin (bridge with
// host-local addresses, or another plugin by "delegate"). It must not know etcd, WireGuard or
// how the daemon works: it knows subnet.env, which the daemon writes, and asks a single
// question over the daemon's socket.
//
//	runtime ── conf ──> loden-cni ── conf of the delegate ──> bridge ──> host-local
//	                     │   └── /var/lib/cni/loden: a record of each attachment
//	                     └ subnet.env, written last by the daemon
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containernetworking/cni/pkg/types"
)

func main() {
	if os.Getenv("CNI_COMMAND") == "" {
		fmt.Fprintf(os.Stderr, "loden-cni: pods on a Loden node; a container runtime starts it, see docs/cni.md\nCNI versions: %v\n", versions())
		return
	}
	err := answer(os.Getenv, os.Stdin, os.Stdout)
	if err == nil {
		return
	}
	answer, ok := errors.AsType[*types.Error](err)
	if !ok {
		answer = types.NewError(types.ErrInternal, err.Error(), "")
	}
	if err := answer.Print(); err != nil {
		fmt.Fprintln(os.Stderr, "loden-cni: print error:", err)
	}
	os.Exit(1)
}

// answer carries out the runtime's command.
func answer(getenv func(string) string, stdin io.Reader, stdout io.Writer) error {
	if getenv("CNI_COMMAND") == "VERSION" {
		return printVersions(stdout)
	}
	c, err := parseCall(getenv, stdin)
	if err != nil {
		return err
	}
	switch c.Command {
	case "ADD":
		return add(c)
	case "DEL":
		return del(c)
	case "CHECK":
		return check(c)
	case "GC":
		return gc(c)
	}
	return status(c)
}
