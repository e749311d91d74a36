package reach

import (
	"bytes"
	"slices"
)

// value is the content of a register, as far as it is known. The zero value is unknown.
type value struct {
	bytes []byte
	known []byte // the bits of bytes that are known
	pod   bool   // the name of a pod's interface: no name of the tunnel, of lo or of an uplink
}

// certainly returns a value of which every bit is known.
func certainly(b ...byte) value {
	return value{bytes: b, known: bytes.Repeat([]byte{0xff}, len(b))}
}

// unknowable returns a value of a size of which no bit is known.
func unknowable(size int) value { return value{bytes: make([]byte, size), known: make([]byte, size)} }

// then returns the value followed by another.
func (v value) then(next value) value {
	return value{bytes: slices.Concat(v.bytes, next.bytes), known: slices.Concat(v.known, next.known)}
}

// part returns some bytes of the value; bytes outside of it are unknown.
func (v value) part(offset, size uint32) value {
	if offset > uint32(len(v.bytes)) || size > uint32(len(v.bytes))-offset {
		return value{}
	}
	return value{bytes: v.bytes[offset : offset+size], known: v.known[offset : offset+size]}
}

// certain reports whether every bit is known.
func (v value) certain() bool {
	return len(v.bytes) > 0 && !slices.ContainsFunc(v.known, func(b byte) bool { return b != 0xff })
}

// equals compares the value with data of the same size. A known bit that differs decides.
func (v value) equals(data []byte) state {
	for i := range data {
		if (v.bytes[i]^data[i])&v.known[i] != 0 {
			return no
		}
	}
	if !v.certain() {
		return unknown
	}
	return yes
}

// masked returns the value with some bits cleared, which are known from then on, and others inverted.
func (v value) masked(mask, invert []byte) value {
	if len(mask) != len(v.bytes) || len(invert) != len(v.bytes) {
		return value{}
	}
	out := unknowable(len(v.bytes))
	for i := range mask {
		out.bytes[i] = v.bytes[i]&mask[i] ^ invert[i]
		out.known[i] = v.known[i] | ^mask[i]
	}
	return out
}
