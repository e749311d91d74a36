package wg

import (
	"github.com/rs/zerolog"

	"github.com/loden-net/loden/backend/engine/wg/tun"
)

// New makes a device on the TUN device of the interface with that name. It owns the files from here
// on, also when it fails. UDP sockets are opened by Run, and again when the listen port changes or
// the interface comes up again, in the network namespace of the process.
func New(files tun.Files, name string, log zerolog.Logger) (*Device, error) {
	device, joinsUDP, err := tun.Open(files, name)
	if err != nil {
		files.Close()
		return nil, err
	}
	d := newDevice(kernelTUN{device}, kernelBinder{}, log)
	d.keepsUDP = !joinsUDP
	return d, nil
}
