package wg

import "github.com/rs/zerolog"

// New makes a device on a TUN device; name is its interface. The device owns the files from
// here on, also when New fails. UDP sockets are opened by Run, and again when the listen port
// changes or the interface comes up again, in the network namespace of the process.
func New(files TUN, name string, log zerolog.Logger) (*Device, error) {
	tun, joinsUDP, err := openTUN(files, name)
	if err != nil {
		files.Close()
		return nil, err
	}
	d := newDevice(tun, kernelBinder{}, log)
	d.keeps = !joinsUDP
	return d, nil
}
