package probe

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// kind says what a message is.
type kind uint8

const (
	ask         kind = 1 // an echo, please
	reply       kind = 2 // the echo: of the size of the question, or shorter
	fetch       kind = 3 // a piece of the answer to a question in words, please
	piece       kind = 4 // a piece of that answer
	unknownKind kind = 5 // the first kind that this version does not know
)

// The flags of a message.
const flagShort = 1 << 0 // of an ask: a short reply is enough, whatever the size of the question

// never is the age of an event that has not happened.
const never = time.Duration(math.MaxInt64)

// message is the content of a datagram. The fields from Sent to Answered are the sender's
// view of the receiver, in the family of the datagram; so both ends compare their views.
//
//	0      1       2         4    12     20      24         28
//	| kind | flags | arrived | re | sent | heard | answered | body, or zeros
type message struct {
	kind     kind
	short    bool          // of an ask
	arrived  int           // of a reply: the bytes of the question as it arrived
	re       uint64        // of a reply and a piece: the id of the question
	sent     time.Time     // by the clock of the sender
	heard    time.Duration // since the sender heard the receiver; never
	answered time.Duration // since a question of the sender was answered; never
	body     []byte
}

// headSize is the size of a message without a body, bytes.
const headSize = 1 + 1 + 2 + 8 + 8 + 4 + 4

// errMalformed says that an authentic datagram holds no message that this version knows.
var errMalformed = errors.New("the message is malformed")

// encode returns the bytes of m, filled with zeros up to size.
func (m message) encode(size int) []byte {
	out := make([]byte, headSize, max(size, headSize+len(m.body)))
	out[0] = byte(m.kind)
	if m.short {
		out[1] = flagShort
	}
	binary.BigEndian.PutUint16(out[2:], uint16(min(m.arrived, math.MaxUint16)))
	binary.BigEndian.PutUint64(out[4:], m.re)
	binary.BigEndian.PutUint64(out[12:], uint64(m.sent.UnixNano()))
	binary.BigEndian.PutUint32(out[20:], milliseconds(m.heard))
	binary.BigEndian.PutUint32(out[24:], milliseconds(m.answered))
	out = append(out, m.body...)
	return out[:max(size, len(out))]
}

// decode reads the bytes of a message. Errors: errMalformed.
func decode(in []byte) (m message, err error) {
	if len(in) < headSize {
		return m, errMalformed
	}
	m = message{
		kind: kind(in[0]), short: in[1]&flagShort != 0,
		arrived: int(binary.BigEndian.Uint16(in[2:])), re: binary.BigEndian.Uint64(in[4:]),
		sent:  time.Unix(0, int64(binary.BigEndian.Uint64(in[12:]))),
		heard: age(binary.BigEndian.Uint32(in[20:])), answered: age(binary.BigEndian.Uint32(in[24:])),
		body: in[headSize:],
	}
	if m.kind == 0 || m.kind >= unknownKind {
		return m, errMalformed
	}
	return m, nil
}

// milliseconds returns an age for the wire; the greatest value stands for never.
func milliseconds(d time.Duration) uint32 {
	if d == never {
		return math.MaxUint32
	}
	return uint32(min(max(d.Milliseconds(), 0), math.MaxUint32-1))
}

func age(ms uint32) time.Duration {
	if ms == math.MaxUint32 {
		return never
	}
	return time.Duration(ms) * time.Millisecond
}

// request asks for a piece of the answer to a question in words. Every request holds the
// question, so that the receiver keeps no state for a request that was lost.
//
//	0        8        12     14      16
//	| answer | number | size | bytes | question, zeros
type request struct {
	answer   uint64 // name of the answer, by the asker: all its pieces come from the same moment
	number   uint32 // of the piece, from 0
	size     int    // bytes of a piece; the piece's datagram is no longer than the request's
	question string
}

// requestSize is the size of a request without the question, bytes.
const requestSize = 8 + 4 + 2 + 2

func (r request) encode() []byte {
	out := make([]byte, requestSize, requestSize+len(r.question))
	binary.BigEndian.PutUint64(out, r.answer)
	binary.BigEndian.PutUint32(out[8:], r.number)
	binary.BigEndian.PutUint16(out[12:], uint16(r.size))
	binary.BigEndian.PutUint16(out[14:], uint16(len(r.question)))
	return append(out, r.question...)
}

// decodeRequest reads a request. Errors: errMalformed, also for a piece that would make the
// reply longer than the request of length body.
func decodeRequest(body []byte) (r request, err error) {
	if len(body) < requestSize {
		return r, errMalformed
	}
	bytes := int(binary.BigEndian.Uint16(body[14:]))
	r = request{
		answer: binary.BigEndian.Uint64(body), number: binary.BigEndian.Uint32(body[8:]),
		size: int(binary.BigEndian.Uint16(body[12:])),
	}
	if bytes > len(body)-requestSize || r.size == 0 || portionSize+r.size > len(body) {
		return r, errMalformed
	}
	r.question = string(body[requestSize : requestSize+bytes])
	return r, nil
}

// portion is a piece of an answer.
//
//	0       4        8
//	| total | number | bytes
type portion struct {
	total  uint32 // bytes of the whole answer; answerLater, answerRefused
	number uint32 // of the piece
	bytes  []byte // of an answer that is refused: the reason
}

// portionSize is the size of a portion without bytes.
const portionSize = 4 + 4

// Totals that are no size.
const (
	answerLater   = math.MaxUint32     // the answer is being made: ask again
	answerRefused = math.MaxUint32 - 1 // there is no answer
)

func (p portion) encode() []byte {
	out := make([]byte, portionSize, portionSize+len(p.bytes))
	binary.BigEndian.PutUint32(out, p.total)
	binary.BigEndian.PutUint32(out[4:], p.number)
	return append(out, p.bytes...)
}

// decodePortion reads a portion. Errors: errMalformed.
func decodePortion(body []byte) (p portion, err error) {
	if len(body) < portionSize {
		return p, errMalformed
	}
	return portion{
		total: binary.BigEndian.Uint32(body), number: binary.BigEndian.Uint32(body[4:]), bytes: body[portionSize:],
	}, nil
}
