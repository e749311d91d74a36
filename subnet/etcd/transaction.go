package etcd

import (
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/loden-net/loden/config/opt"
)

// etcdID is the number of an etcd lease: the time to live that keys hang on. The word
// "lease" alone means a node's claim to its subnets (subnet.Lease).
type etcdID = clientv3.LeaseID

// forGood stands for no etcd lease: keys that hang on it never run out.
const forGood etcdID = 0

// transaction is a set of writes that happens whole if all conditions hold, and not at all
// otherwise. It is a value: decide makes it, the client sends it.
type transaction struct {
	what       string // for errors: "write lease 10.5.1.0-24"
	conditions []condition
	puts       []put
	deletes    []string           // keys
	hangs      opt.Option[etcdID] // etcd lease of the puts: none asks for a new etcd lease
}

type put struct{ key, value string }

// condition is a statement about a key that must still be true when the transaction runs.
type condition struct {
	key  string
	kind conditionKind
	rev  int64  // for created and modified
	text string // for says
}

type conditionKind int

const (
	modified  conditionKind = iota // last changed at rev; 0: the key is absent
	created                        // created at rev
	exists                         // the key is present
	says                           // the value is text
	noneBelow                      // no key begins with key
	unchanged                      // no key that begins with key has changed after rev
)

// compare returns the condition in the words of etcd's client.
func (c condition) compare() clientv3.Cmp {
	switch c.kind {
	case created:
		return clientv3.Compare(clientv3.CreateRevision(c.key), "=", c.rev)
	case exists:
		return clientv3.Compare(clientv3.CreateRevision(c.key), ">", 0)
	case says:
		return clientv3.Compare(clientv3.Value(c.key), "=", c.text)
	case noneBelow:
		return clientv3.Compare(clientv3.CreateRevision(c.key).WithPrefix(), "=", 0)
	case unchanged:
		return clientv3.Compare(clientv3.ModRevision(c.key).WithPrefix(), "<", c.rev+1)
	default:
		return clientv3.Compare(clientv3.ModRevision(c.key), "=", c.rev)
	}
}

// conflict returns the request that reads why the condition did not hold, if that can help.
func (c condition) conflict() (clientv3.Op, bool) {
	switch c.kind {
	case modified:
		return clientv3.OpGet(c.key), true
	case noneBelow:
		return clientv3.OpGet(c.key, clientv3.WithPrefix(), clientv3.WithKeysOnly()), true
	default:
		return clientv3.Op{}, false
	}
}

// operations returns the transaction in the words of etcd's client; its puts hang on id.
func (t transaction) operations(id etcdID) (ifs []clientv3.Cmp, thens, elses []clientv3.Op) {
	for _, c := range t.conditions {
		ifs = append(ifs, c.compare())
		if read, ok := c.conflict(); ok {
			elses = append(elses, read)
		}
	}
	for _, p := range t.puts {
		thens = append(thens, clientv3.OpPut(p.key, p.value, clientv3.WithLease(id)))
	}
	for _, key := range t.deletes {
		thens = append(thens, clientv3.OpDelete(key))
	}
	return ifs, thens, elses
}

// String lists the transaction, a line for each part; transcripts show it.
func (t transaction) String() string {
	var b strings.Builder
	for _, c := range t.conditions {
		switch {
		case c.kind == modified && c.rev == 0:
			fmt.Fprintf(&b, "if   %s is absent\n", c.key)
		case c.kind == modified:
			fmt.Fprintf(&b, "if   %s is unchanged since revision %d\n", c.key, c.rev)
		case c.kind == created:
			fmt.Fprintf(&b, "if   %s was created at revision %d\n", c.key, c.rev)
		case c.kind == exists:
			fmt.Fprintf(&b, "if   %s is present\n", c.key)
		case c.kind == says:
			fmt.Fprintf(&b, "if   %s is %s\n", c.key, c.text)
		case c.kind == noneBelow:
			fmt.Fprintf(&b, "if   no key begins with %s\n", c.key)
		default:
			fmt.Fprintf(&b, "if   no key below %s has changed since revision %d\n", c.key, c.rev)
		}
	}
	for _, p := range t.puts {
		fmt.Fprintf(&b, "put  %s %s\n", p.key, p.value)
	}
	for _, key := range t.deletes {
		fmt.Fprintf(&b, "del  %s\n", key)
	}
	if len(t.puts) > 0 {
		switch id, known := t.hangs.Get(); {
		case !known:
			b.WriteString("on   a new etcd lease\n")
		case id == forGood:
			b.WriteString("on   no etcd lease\n")
		default:
			fmt.Fprintf(&b, "on   etcd lease %d\n", id)
		}
	}
	return b.String()
}
