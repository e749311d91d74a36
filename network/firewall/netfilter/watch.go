package netfilter

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Watch calls notify after every transaction of nf_tables in which something happened to a table and
// chain that concern is true for; chain is empty when the whole table is meant. It blocks until ctx ends
// and then returns nil. When the kernel dropped announcements because they came too fast, Watch calls
// notify too.
func Watch(ctx context.Context, concern func(table, chain string) bool, notify func()) error {
	for missed := false; ; missed = true {
		events, stop, err := subscribe()
		if err != nil {
			return fmt.Errorf("watch nf_tables: %w", err)
		}
		if missed {
			notify()
		}
		err = follow(ctx, events, concern, notify)
		stop()
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("watch nf_tables: %w", err)
		}
	}
}

// subscribe opens a monitor in the network namespace of the calling thread. stop ends its goroutine.
func subscribe() (events <-chan *nftables.MonitorEvents, stop func(), err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, nil, err
	}
	m := nftables.NewMonitor(nftables.WithMonitorAction(nftables.MonitorActionAny), nftables.WithMonitorObject(nftables.MonitorObjectAny))
	ch, err := c.AddGenerationalMonitor(m)
	if err != nil {
		return nil, nil, err
	}
	return ch, func() {
		_ = m.Close() // the socket was open for reading only: no data can be lost
		for range ch {
		} // the monitor may be about to send; it closes the channel last
	}, nil
}

// follow passes transactions on until ctx ends or the monitor does.
func follow(ctx context.Context, events <-chan *nftables.MonitorEvents, concern func(table, chain string) bool, notify func()) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case transaction, ok := <-events:
			switch {
			case !ok:
				return errors.New("the monitor ended")
			case transaction.GeneratedBy.Type == nftables.MonitorEventTypeOOB:
				return transaction.GeneratedBy.Error
			}
			for _, e := range transaction.Changes {
				if concerns(e, concern) {
					notify()
					break
				}
			}
		}
	}
}

// concerns reports whether an announcement is about a table or chain that concern is true for. An
// announcement of a table, chain or rule that the library could not read counts too.
func concerns(e *nftables.MonitorEvent, concern func(table, chain string) bool) bool {
	switch e.Type {
	case nftables.MonitorEventTypeNewTable, nftables.MonitorEventTypeDelTable:
		t, ok := e.Data.(*nftables.Table)
		return !ok || t == nil || concern(t.Name, "")
	case nftables.MonitorEventTypeNewChain, nftables.MonitorEventTypeDelChain:
		c, ok := e.Data.(*nftables.Chain)
		return !ok || c == nil || c.Table == nil || concern(c.Table.Name, c.Name)
	case nftables.MonitorEventTypeNewRule, nftables.MonitorEventTypeDelRule:
		r, ok := e.Data.(*nftables.Rule)
		return !ok || r == nil || r.Table == nil || r.Chain == nil || concern(r.Table.Name, r.Chain.Name)
	}
	return false
}
