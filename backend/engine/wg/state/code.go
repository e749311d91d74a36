package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/loden-net/loden/backend/engine/wg/noise"
	"github.com/loden-net/loden/config/opt"
)

// Version is the version of the form. Decode refuses every other version.
const Version = 2

// MaxSize is the longest text that is read, in bytes: 100,000 peers with two keypairs each
// take less than two thirds of it.
const MaxSize = 128 << 20

// errMalformed names no detail of a malformed text, which may hold secrets.
var errMalformed = errors.New("malformed state")

// Encode returns the text of d. It holds keys: clear it after use.
func Encode(d *Device) []byte {
	c := &coder{b: make([]byte, 0, bound(d)), writing: true}
	version := uint32(Version)
	c.u32(&version)
	d.walk(c)
	return c.b
}

// bound returns an upper bound of the length of d's text in bytes, so that the text never grows
// and leaves no copies of keys behind.
func bound(d *Device) int {
	size := 64
	for i := range d.Peers {
		size += 1024 + 32*len(d.Peers[i].Allowed)
		active, _ := d.Peers[i].Active.Get()
		for _, packet := range active.Staged {
			size += 4 + len(packet)
		}
	}
	return size
}

// Decode reads the text of a device. The device does not refer to b.
func Decode(b []byte) (*Device, error) {
	c, version, d := &coder{b: b}, uint32(0), &Device{}
	c.u32(&version)
	if version != Version {
		return nil, fmt.Errorf("state of version %d, want %d", version, Version)
	}
	d.walk(c)
	if c.bad || len(c.b) > 0 {
		d.Wipe()
		return nil, errMalformed
	}
	return d, nil
}

// coder reads or writes: the layout is described once, for both ways.
type coder struct {
	b       []byte // the text written so far, or still to be read
	writing bool
	bad     bool // the text is not in the form that a writer produces
}

// bytes copies len(p) bytes from p or into it.
func (c *coder) bytes(p []byte) {
	switch {
	case c.writing:
		c.b = append(c.b, p...)
	case len(c.b) < len(p):
		c.bad, c.b = true, nil
	default:
		copy(p, c.b)
		c.b = c.b[len(p):]
	}
}

func (c *coder) u64(v *uint64) {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], *v)
	c.bytes(raw[:])
	*v = binary.BigEndian.Uint64(raw[:])
}

func (c *coder) u32(v *uint32) {
	var raw [4]byte
	binary.BigEndian.PutUint32(raw[:], *v)
	c.bytes(raw[:])
	*v = binary.BigEndian.Uint32(raw[:])
}

func (c *coder) u16(v *uint16) {
	var raw [2]byte
	binary.BigEndian.PutUint16(raw[:], *v)
	c.bytes(raw[:])
	*v = binary.BigEndian.Uint16(raw[:])
}

func (c *coder) i64(v *int64) {
	u := uint64(*v)
	c.u64(&u)
	*v = int64(u)
}

func (c *coder) moments(all ...*Moment) {
	for _, m := range all {
		v := int64(*m)
		c.i64(&v)
		c.bad = c.bad || v < 0
		*m = Moment(v)
	}
}

func (c *coder) flag(v *bool) {
	raw := [1]byte{}
	if *v {
		raw[0] = 1
	}
	c.bytes(raw[:])
	*v = raw[0] == 1
	c.bad = c.bad || raw[0] > 1
}

// text is a string of bytes of any length.
func (c *coder) text(v *[]byte) {
	n := uint32(len(*v))
	c.u32(&n)
	if !c.writing {
		if int(n) > len(c.b) {
			c.bad, c.b = true, nil
			return
		}
		*v = make([]byte, n)
	}
	c.bytes(*v)
}

// binaryText is the encoding of the types of netip. An empty text is the zero value.
func binaryText[T any, P interface {
	*T
	AppendBinary([]byte) ([]byte, error)
	UnmarshalBinary([]byte) error
}](c *coder, v P) {
	raw, err := v.AppendBinary(nil)
	c.text(&raw)
	c.bad = c.bad || err != nil || (!c.writing && v.UnmarshalBinary(raw) != nil)
}

// optional is a value that may be missing.
func optional[T any](c *coder, o *opt.Option[T], each func(*coder, *T)) {
	v, present := o.Get()
	if c.flag(&present); !present || c.bad {
		return
	}
	each(c, &v)
	if !c.writing {
		*o = opt.Some(v)
	}
}

// list is any number of values, each of at least min bytes, which bounds the memory
// that a wrong number can make Decode allocate.
func list[T any](c *coder, all *[]T, min int, each func(*coder, *T)) {
	n := uint32(len(*all))
	c.u32(&n)
	if !c.writing {
		if int(n) > len(c.b)/min {
			c.bad, c.b = true, nil
			return
		}
		*all = make([]T, n)
	}
	for i := range *all {
		each(c, &(*all)[i])
	}
}

func (d *Device) walk(c *coder) {
	c.moments(&d.Now)
	c.bytes(d.Private[:])
	c.u16(&d.Port)
	c.u32(&d.Mark)
	list(c, &d.Peers, len(noise.Key{}), func(c *coder, p *Peer) { p.walk(c) })
}

func (p *Peer) walk(c *coder) {
	c.bytes(p.Public[:])
	c.bytes(p.Preshared[:])
	c.u16(&p.Keepalive)
	optional(c, &p.Endpoint, func(c *coder, a *netip.AddrPort) { binaryText(c, a) })
	binaryText(c, &p.Local)
	list(c, &p.Allowed, 4, func(c *coder, a *netip.Prefix) {
		binaryText(c, a)
		c.bad = c.bad || !a.IsValid() || *a != a.Masked()
	})
	c.u64(&p.Sent)
	c.u64(&p.Received)
	c.bytes(p.Newest[:])
	c.i64(&p.Finished)
	c.moments(&p.ReadAt, &p.PersistAt, &p.SentAt, &p.GotAt, &p.OwedSince, &p.AwaitSince)
	c.flag(&p.WantsKeys)
	optional(c, &p.Active, func(c *coder, a *Active) { a.walk(c) })
}

func (a *Active) walk(c *coder) {
	c.bytes(a.Shared[:])
	c.moments(&a.BegunAt, &a.OpenedAt, &a.DerivedAt)
	for _, k := range []*opt.Option[Keypair]{&a.Current, &a.Previous, &a.Next} {
		optional(c, k, func(c *coder, k *Keypair) { k.walk(c) })
	}
	list(c, &a.Staged, 4, func(c *coder, packet *[]byte) { c.text(packet) })
}

func (k *Keypair) walk(c *coder) {
	c.bytes(k.Keys.Send[:])
	c.bytes(k.Keys.Receive[:])
	c.u32(&k.Keys.Remote)
	c.u32(&k.Local)
	c.flag(&k.Initiator)
	c.moments(&k.Created)
	c.u64(&k.Counter)
	c.u64(&k.Window.Newest)
	for i := range k.Window.Blocks {
		c.u64(&k.Window.Blocks[i])
	}
}
