package wg

import "github.com/loden-net/loden/backend/engine/wg/cipher"

// sealed is one transport message as it came, and is decrypted in place.
type sealed struct {
	raw       []byte
	session   *session
	in        *incoming // what it came with
	authentic bool      // known once it is decrypted
}

// opening is messages in the order in which they came, up to maxOpening of any session and
// length. Those that are alike are decrypted side by side. The zero value is empty.
type opening struct {
	messages [maxOpening]sealed
	n        int

	row     [cipher.Lanes][]byte
	members [cipher.Lanes]*sealed // of row
	ok      [cipher.Lanes]bool
}

func (o *opening) add(s *session, raw []byte, in *incoming) {
	o.messages[o.n] = sealed{raw: raw, session: s, in: in}
	o.n++
}

// decrypt decrypts all messages. The next one that is not alike ends a row; but a shorter
// one, as the last of a train is, goes by itself.
func (o *opening) decrypt() {
	n := 0
	for i := range o.messages[:o.n] {
		m := &o.messages[i]
		if n > 0 {
			first := o.members[0]
			switch {
			case n == cipher.Lanes, m.session != first.session, len(m.raw) > len(first.raw):
				o.decryptRow(n)
				n = 0
			case len(m.raw) < len(first.raw):
				alone := [1][]byte{m.raw}
				var ok [cipher.Lanes]bool
				m.session.receive.Open(alone[:], &ok)
				m.authentic = ok[0]
				continue
			}
		}
		o.row[n], o.members[n] = m.raw, m
		n++
	}
	o.decryptRow(n)
}

// decryptRow decrypts the first n of row.
func (o *opening) decryptRow(n int) {
	if n == 0 {
		return
	}
	o.members[0].session.receive.Open(o.row[:n], &o.ok)
	for i, m := range o.members[:n] {
		m.authentic = o.ok[i]
	}
}
