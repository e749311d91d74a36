package main

import (
	"fmt"
	"net"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// askTimeout bounds the question to the daemon with its answer. containerd asks for STATUS about
// every 5 s and waits for the answer.
const askTimeout = time.Second

// status returns an error when an ADD would not work now. A daemon that answers decides. When
// the daemon is away (an upgrade, a crash), status judges subnet.env, which the daemon writes
// last, and the daemon's interface. So a restart of the daemon makes no node NotReady.
func status(c call) error {
	conf := c.Conf
	d, envErr := delegateNow(conf)
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
	if err := gatewayWithin(d, conf.SubnetFile, bridgeLimit); err != nil {
		return err
	}
	return record{Plugin: d.Plugin, Config: d.Config}.run(c)
}

// bridgeLimit bounds the wait for the gateway addresses of a bridge: an ADD that makes the bridge
// at this moment sets them within milliseconds.
const bridgeLimit = 500 * time.Millisecond

// gatewayWithin waits until the bridge has its gateway addresses, and returns the error of
// checkGateway when the limit is over.
func gatewayWithin(d delegation, subnetFile string, limit time.Duration) error {
	env, err := loadEnv(subnetFile)
	if err != nil {
		return err
	}
	over := time.After(limit)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := checkGateway(d, env)
		if err == nil {
			return nil
		}
		select {
		case <-over:
			return err
		case <-tick.C:
		}
	}
}

// notReady returns the error of STATUS: an ADD would fail, and with hasPods the pods on the node
// may be cut off.
func notReady(hasPods bool, reason string) error {
	if hasPods {
		return types.NewError(types.ErrLimitedConnectivity, "loden: "+reason, "")
	}
	return types.NewError(types.ErrPluginNotAvailable, "loden: "+reason, "")
}

// carries returns an error when the tunnel interface cannot carry packets. An interface without
// carrier belongs to a userspace data plane whose process is gone.
func carries(tunnel string) error {
	link, err := net.InterfaceByName(tunnel)
	if err != nil {
		return fmt.Errorf("interface %s does not exist", tunnel)
	}
	if link.Flags&net.FlagUp == 0 {
		return fmt.Errorf("interface %s is down", tunnel)
	}
	if link.Flags&net.FlagRunning == 0 {
		return fmt.Errorf("interface %s has no carrier", tunnel)
	}
	return nil
}
