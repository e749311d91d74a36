// Package opt owns absence: a value that may be missing, and one optional value per
// address family. It knows nothing of networks, leases or rules, and imports the
// standard library only.
//
// Loden starts from a crash: a previous IPv6 network that was nil was compared and the
// daemon died at its first start (flannel issue 1968). Here "missing" has no pointer to
// follow: the only way to the value is Get, which says whether there is one.
package opt

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Option holds a value or nothing. The zero value holds nothing. When T is comparable so
// is Option[T], and == means what one hopes: nothing equals nothing, a value equals the
// same value.
type Option[T any] struct {
	value T // the zero T whenever ok is false, so that == is sound
	ok    bool
}

// Some returns an Option that holds v.
func Some[T any](v T) Option[T] { return Option[T]{value: v, ok: true} }

// None returns an Option that holds nothing: the zero value, by its name.
func None[T any]() Option[T] { return Option[T]{} }

// Get returns the value and whether there is one. It is the only way in.
func (o Option[T]) Get() (T, bool) { return o.value, o.ok }

// Present reports whether o holds a value.
func (o Option[T]) Present() bool { return o.ok }

// Or returns the value, or other where there is none.
func (o Option[T]) Or(other T) T {
	if o.ok {
		return o.value
	}
	return other
}

// String prints the value, or "none".
func (o Option[T]) String() string {
	if !o.ok {
		return "none"
	}
	return fmt.Sprint(o.value)
}

// GoString prints as String does, so that a secret inside stays hidden under %#v too.
func (o Option[T]) GoString() string { return o.String() }

// MarshalJSON writes the value, or null.
func (o Option[T]) MarshalJSON() ([]byte, error) {
	if !o.ok {
		return []byte("null"), nil
	}
	return json.Marshal(o.value)
}

// UnmarshalJSON reads a value, or nothing from null.
func (o *Option[T]) UnmarshalJSON(b []byte) error {
	*o = Option[T]{}
	if bytes.Equal(bytes.TrimSpace(b), []byte("null")) {
		return nil
	}
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*o = Some(v)
	return nil
}

// IsZero reports whether o holds nothing, so that "omitzero" leaves it out of JSON.
func (o Option[T]) IsZero() bool { return !o.ok }
