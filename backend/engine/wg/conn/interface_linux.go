package conn

import "golang.org/x/sys/unix"

// InterfaceIndex returns the number of the interface with that name, in the network namespace of
// the calling thread.
func InterfaceIndex(name string) (index uint32, known bool) {
	request, err := unix.NewIfreq(name) // fails for a name that is too long
	if err != nil || ask(unix.SIOCGIFINDEX, request) != nil {
		return 0, false
	}
	return request.Uint32(), true
}

// InterfaceName returns the name of the interface with that number, in the network namespace of
// the calling thread.
func InterfaceName(index uint32) (name string, known bool) {
	request, err := unix.NewIfreq("lo") // any name: the answer replaces it
	if err != nil {
		return "", false
	}
	request.SetUint32(index)
	if ask(unix.SIOCGIFNAME, request) != nil {
		return "", false
	}
	return request.Name(), true
}

// ask asks the kernel about an interface.
func ask(question uint, request *unix.Ifreq) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) // a socket without data loses no data
	return unix.IoctlIfreq(fd, question, request)
}
