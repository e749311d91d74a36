package opt

import (
	"iter"
	"net/netip"
)

// Family is an address family. Only V4 and V6 exist; the zero value is V4.
type Family uint8

// The two address families.
const (
	V4 Family = iota
	V6
)

// String returns "IPv4" or "IPv6".
func (f Family) String() string {
	if f == V6 {
		return "IPv6"
	}
	return "IPv4"
}

// Bits returns the length of an address of the family: 32 or 128.
func (f Family) Bits() int {
	if f == V6 {
		return 128
	}
	return 32
}

// FamilyOf returns the family of a valid address. An IPv4-mapped IPv6 address is IPv6:
// unmap it first where that matters.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return V4
	}
	return V6
}

// Families lists both families in their fixed order, for loops that must visit both.
func Families() [2]Family { return [2]Family{V4, V6} }

// Dual holds at most a single value per address family. In the zero value both families are
// absent. It is comparable with == when T is.
type Dual[T any] struct {
	V4 Option[T] `json:"ipv4,omitzero"`
	V6 Option[T] `json:"ipv6,omitzero"`
}

// All yields the families that are present, IPv4 first. An absent family is never
// yielded, so a loop body has no "is it there?" to forget.
func (d Dual[T]) All() iter.Seq2[Family, T] {
	return func(yield func(Family, T) bool) {
		for _, f := range Families() {
			if v, ok := d.Of(f).Get(); ok && !yield(f, v) {
				return
			}
		}
	}
}

// Of returns the value of family f, if the family is present.
func (d Dual[T]) Of(f Family) Option[T] {
	if f == V6 {
		return d.V6
	}
	return d.V4
}

// With returns d with family f holding v.
func (d Dual[T]) With(f Family, v T) Dual[T] { return d.set(f, Some(v)) }

// Without returns d with family f absent.
func (d Dual[T]) Without(f Family) Dual[T] { return d.set(f, None[T]()) }

func (d Dual[T]) set(f Family, o Option[T]) Dual[T] {
	if f == V6 {
		d.V6 = o
	} else {
		d.V4 = o
	}
	return d
}

// Len returns how many families are present: 0, 1 or 2.
func (d Dual[T]) Len() int {
	n := 0
	for range d.All() {
		n++
	}
	return n
}

// Map applies fn to each family that is present; absent stays absent.
func Map[T, U any](d Dual[T], fn func(Family, T) U) Dual[U] {
	var out Dual[U]
	for f, v := range d.All() {
		out = out.With(f, fn(f, v))
	}
	return out
}

// IsZero reports whether both families are absent, so that "omitzero" leaves d out of JSON.
func (d Dual[T]) IsZero() bool { return !d.V4.ok && !d.V6.ok }
