package wg

import (
	"os"

	"github.com/rs/zerolog"
)

// New makes a device on a TUN file opened non-blocking with IFF_TUN, IFF_NO_PI and
// IFF_VNET_HDR; name is its interface. The device owns the file from here on, also when New
// fails. UDP sockets are opened by Run, and again when the listen port changes or the
// interface comes up again, in the network namespace of the process.
func New(file *os.File, name string, log zerolog.Logger) (*Device, error) {
	tun, joinsUDP, err := openTUN(file, name)
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	d := newDevice(tun, kernelBinder{}, log)
	d.keeps = !joinsUDP
	return d, nil
}
