package lab

import (
	"errors"
	"sync"

	"github.com/loden-net/loden/config/opt"
)

// voice is a pod in a family.
type voice struct {
	pod    *Pod
	family opt.Family
}

// echoers has an echoer for every pod and family.
type echoers struct {
	of   map[voice]*echoer
	runs sync.WaitGroup
}

// newEchoers opens a socket for every pod and family. The caller closes the echoers, also after an
// error.
func (l *Lab) newEchoers() (*echoers, error) {
	all := &echoers{of: map[voice]*echoer{}}
	for _, n := range l.Nodes {
		for _, p := range n.Pods {
			for _, f := range l.Families.List() {
				e, err := newEchoer(p.Host, f, echoSize)
				if err != nil {
					return all, err
				}
				all.of[voice{p, f}] = e
				all.runs.Go(e.run)
			}
		}
	}
	return all, nil
}

// close closes all sockets.
func (a *echoers) close() error {
	var errs []error
	for _, e := range a.of {
		errs = append(errs, e.Close())
	}
	a.runs.Wait()
	return errors.Join(errs...)
}
