package wg

import (
	"github.com/rs/zerolog"

	"github.com/loden-net/loden/backend/engine/wg/tun"
)

// New makes a device on a TUN device; name is its interface. The device owns the files from
// here on, also when New fails. UDP sockets are opened by Run, and again when the listen port
// changes or the interface comes up again, in the network namespace of the process.
func New(files tun.Files, name string, log zerolog.Logger) (*Device, error) {
	device, joinsUDP, err := tun.Open(files, name)
	if err != nil {
		files.Close()
		return nil, err
	}
	d := newDevice(kernelTUN{device}, kernelBinder{}, log)
	d.keeps = !joinsUDP
	return d, nil
}
