// Command loden-cni is the CNI plugin of a Loden node. It owns one step: reading the
// node's subnet from subnet.env and handing pods over to a reference plugin (bridge with
// host-local addresses, or any other by "delegate"). It must not know etcd, WireGuard or
// how the daemon works: what it knows of the daemon is subnet.env and one question over
// its socket.
//
//	runtime ── conf ──> loden-cni ── conf of the delegate ──> bridge ──> host-local
//	                     │   └── /var/lib/cni/loden: what was delegated, per attachment
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
	said, ok := errors.AsType[*types.Error](err)
	if !ok {
		said = types.NewError(types.ErrInternal, err.Error(), "")
	}
	if err := said.Print(); err != nil {
		fmt.Fprintln(os.Stderr, "loden-cni: print error:", err)
	}
	os.Exit(1)
}

// answer does what the runtime asks for.
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
