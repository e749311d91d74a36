package wg

import (
	"github.com/loden-net/loden/backend/engine/wg/cipher"
	"github.com/loden-net/loden/backend/engine/wg/conn"
	"github.com/loden-net/loden/backend/engine/wg/peer"
)

// message is a transport message, encrypted and decrypted in place.
type message struct {
	raw       []byte
	keypair   *peer.Keypair
	in        *conn.Incoming // the datagram that it came in; nil on the way out
	authentic bool           // known once it is decrypted
}

// batch is messages of any keypair and length in order. Messages of the same keypair and length
// are encrypted or decrypted side by side. The zero value is empty.
type batch struct {
	messages []message
	row      [cipher.Lanes][]byte
	members  [cipher.Lanes]*message // of row
	ok       [cipher.Lanes]bool
}

func (b *batch) add(m message) { b.messages = append(b.messages, m) }

func (b *batch) clear() { b.messages = b.messages[:0] }

// rows calls f with the length of each row, which f finds in b.row and b.members. A message of
// another keypair or length ends a row; but a shorter message, as the last of a train is, goes by
// itself.
func (b *batch) rows(f func(b *batch, n int)) {
	var short [maxShort]*message
	n, shorts := 0, 0
	for i := range b.messages {
		m := &b.messages[i]
		if n > 0 {
			first := b.members[0]
			alike := m.keypair == first.keypair && len(m.raw) == len(first.raw)
			if m.keypair == first.keypair && len(m.raw) < len(first.raw) && shorts < maxShort {
				short[shorts] = m
				shorts++
				continue
			}
			if n == cipher.Lanes || !alike {
				f(b, n)
				n = 0
			}
		}
		b.row[n], b.members[n] = m.raw, m
		n++
	}
	if n > 0 {
		f(b, n)
	}
	for _, m := range short[:shorts] {
		b.row[0], b.members[0] = m.raw, m
		f(b, 1)
	}
}

// maxShort is the greatest number of messages of a batch that go by themselves.
const maxShort = 8

// encrypt encrypts all messages.
func (b *batch) encrypt() {
	b.rows(func(b *batch, n int) { b.members[0].keypair.Seal(b.row[:n]) })
}

// decrypt decrypts all messages.
func (b *batch) decrypt() {
	b.rows(func(b *batch, n int) {
		b.members[0].keypair.Open(b.row[:n], &b.ok)
		for i, m := range b.members[:n] {
			m.authentic = b.ok[i]
		}
	})
}
