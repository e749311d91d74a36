// Package opt owns absence: a value that may be missing, and an optional value per
// address family. It does not know networks, leases or rules, and imports the
// standard library only.
//
// The package answers a crash: flannel compared a previous IPv6 network that was nil, and
// the daemon died at its first start (flannel issue 1968). Here an absent value has no
// pointer to follow: Get alone gives the value, and reports whether there is a value.
package opt

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Option holds a value, or is empty. The zero value is empty. When T is comparable so is
// Option[T]: two empty Options are equal, and two values are equal when the values are.
type Option[T any] struct {
	value T // the zero T whenever ok is false, so that == is sound
	ok    bool
}

// Some returns an Option that holds v.
func Some[T any](v T) Option[T] { return Option[T]{value: v, ok: true} }

// None returns an empty Option: the zero value, by its name.
func None[T any]() Option[T] { return Option[T]{} }

// Get returns the value and whether there is a value. No other method gives access to it.
func (o Option[T]) Get() (T, bool) { return o.value, o.ok }

// Present reports whether o holds a value.
func (o Option[T]) Present() bool { return o.ok }

// Or returns the value, or other for an empty Option.
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

// UnmarshalJSON reads a value; null gives an empty Option.
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

// IsZero reports whether o is empty, so that "omitzero" leaves it out of JSON.
func (o Option[T]) IsZero() bool { return !o.ok }
