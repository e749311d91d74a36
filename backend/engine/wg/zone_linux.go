package wg

import "golang.org/x/sys/unix"

// interfaceIndex returns the number of the interface with that name.
func (k kernelBinder) interfaceIndex(name string) (index uint32, known bool) {
	request, err := unix.NewIfreq(name) // fails for a name that is too long
	if err != nil || k.ask(unix.SIOCGIFINDEX, request) != nil {
		return 0, false
	}
	return request.Uint32(), true
}

// interfaceName returns the name of the interface with that number.
func (k kernelBinder) interfaceName(index uint32) (name string, known bool) {
	request, err := unix.NewIfreq("lo") // any name: it is the answer's place
	if err != nil {
		return "", false
	}
	request.SetUint32(index)
	if k.ask(unix.SIOCGIFNAME, request) != nil {
		return "", false
	}
	return request.Name(), true
}

// ask asks the kernel about an interface of the network namespace that open opens sockets in.
func (kernelBinder) ask(question uint, request *unix.Ifreq) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) // nothing was written
	return unix.IoctlIfreq(fd, question, request)
}
