package backend

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/loden-net/loden/backend/engine"
	"github.com/loden-net/loden/config/opt"
)

// Kind names the data path that encrypts.
type Kind string

// The kinds.
const (
	Kernel      Kind = "kernel"
	WireGuardGo Kind = Kind(engine.WireGuardGo)
	Loden       Kind = Kind(engine.Loden)
)

// facts are the state of the host on which the choice depends.
type facts struct {
	asked  string           // the --engine flag
	kernel bool             // the kernel has WireGuard
	link   opt.Option[link] // the interface, if it exists
	engine opt.Option[Kind] // the kind of the engine that runs for it
}

// choice is a kind and why. missing is what the host lacks for it: the choice stands, so
// that a plan or a removal is possible all the same.
type choice struct {
	kind    Kind
	reason  string
	missing error
}

// choose picks the data path. An existing data path stays, unless another was asked for: a
// restart must not become an outage because the host has learned something new.
func choose(name string, f facts) (choice, error) {
	switch Kind(f.asked) {
	case "auto", "":
		return automatic(name, f), nil
	case Kernel:
		c := choice{kind: Kernel, reason: "asked for"}
		if !f.kernel {
			c.missing = errors.New("the kernel has no WireGuard: `modprobe wireguard`, or choose --engine auto")
		}
		return c, nil
	case WireGuardGo, Loden:
		return choice{kind: Kind(f.asked), reason: "asked for"}, nil
	}
	return choice{}, fmt.Errorf("engine %q: choose one of auto, kernel, wireguard-go, loden", f.asked)
}

func automatic(name string, f facts) choice {
	if l, ok := f.link.Get(); ok {
		switch l.kind {
		case kernelLink:
			return choice{kind: Kernel, reason: name + " is a kernel WireGuard interface already"}
		case tunLink:
			return choice{kind: f.engine.Or(Kind(engine.DefaultKind)), reason: name + " is a TUN device already"}
		}
	}
	if f.kernel {
		return choice{kind: Kernel, reason: "the kernel has WireGuard"}
	}
	return choice{kind: Kind(engine.DefaultKind), reason: "the kernel has no WireGuard"}
}

// kernelWireGuard asks the kernel for its WireGuard. The question makes a kernel that has
// WireGuard as a module load it. No interface is made to find out.
func kernelWireGuard() (bool, error) {
	_, err := netlink.GenlFamilyGet(unix.WG_GENL_NAME)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("ask the kernel for WireGuard: %w", err)
	}
	return true, nil
}
