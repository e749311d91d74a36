package main

import (
	"fmt"
	"net"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// askTimeout bounds the whole question to the daemon. containerd asks for STATUS about
// every 5 s and waits for the answer.
const askTimeout = time.Second

// status says whether an ADD would work now. The daemon's word counts when it answers;
// when it is away (an upgrade, a crash) what it left behind does: subnet.env, which it
// writes last, and its interface. So a restart of the daemon makes no node NotReady.
func status(c call) error {
	conf := c.Conf
	d, envErr := today(conf)
	ready, reason, askErr := ask(conf.Socket, askTimeout)
	switch {
	case askErr == nil && !ready:
		return notReady(envErr == nil, reason)
	case askErr != nil && envErr != nil:
		return notReady(false, fmt.Sprintf("%v; and the daemon does not answer: %v", envErr, askErr))
	case envErr != nil:
		return notReady(false, envErr.Error())
	case askErr != nil:
		if err := carries(conf.Tunnel); err != nil {
			return notReady(true, fmt.Sprintf("%v; and the daemon does not answer: %v", err, askErr))
		}
	}
	_, err := invocation{Plugin: d.Plugin, Path: c.Path, Config: d.Config}.run()
	return err
}

// notReady is the error of STATUS: pods cannot be added, and, where there are pods
// already, those may be cut off.
func notReady(hasPods bool, reason string) error {
	if hasPods {
		return types.NewError(types.ErrLimitedConnectivity, "loden: "+reason, "")
	}
	return types.NewError(types.ErrPluginNotAvailable, "loden: "+reason, "")
}

// carries says why the tunnel interface would not carry a packet. An interface without
// carrier is a userspace data plane whose process is gone.
func carries(tunnel string) error {
	link, err := net.InterfaceByName(tunnel)
	if err != nil {
		return fmt.Errorf("interface %s is not there", tunnel)
	}
	if link.Flags&net.FlagUp == 0 {
		return fmt.Errorf("interface %s is down", tunnel)
	}
	if link.Flags&net.FlagRunning == 0 {
		return fmt.Errorf("interface %s has no carrier", tunnel)
	}
	return nil
}
