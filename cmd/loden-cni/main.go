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
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
)

// about is printed when the plugin is started by hand.
const about = "loden-cni: pods on a Loden node; a container runtime starts it, see docs/cni.md"

func main() {
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add:    add,
		Del:    del,
		Check:  check,
		GC:     gc,
		Status: status,
	}, versions(), about)
	if err == nil {
		return
	}
	if printErr := err.Print(); printErr != nil {
		fmt.Fprintln(os.Stderr, "loden-cni: print error:", printErr)
	}
	os.Exit(1)
}

// versions lists the CNI versions the plugin speaks. Results of 0.2.0 and older have one
// address per family only and no interfaces, so they end at 0.3.1.
func versions() version.PluginInfo {
	return version.PluginSupports("0.3.1", "0.4.0", "1.0.0", "1.1.0")
}
