package noise

import "encoding/binary"

// Message types: the first byte of every message, followed by three zero bytes.
const (
	TypeInitiation = 1
	TypeResponse   = 2
	TypeCookie     = 3
	TypeTransport  = 4
)

// Sizes of messages, in bytes.
const (
	InitiationSize = 4 + 4 + 32 + (32 + 16) + (12 + 16) + 16 + 16 // type, index, ephemeral, static, timestamp, codes
	ResponseSize   = 4 + 4 + 4 + 32 + (0 + 16) + 16 + 16          // type, two indices, ephemeral, an empty text, codes
	CookieSize     = 4 + 4 + 24 + (16 + 16)                       // type, index, nonce, cookie
)

// Well reports whether msg has the type and the exact size of a handshake message.
func Well(msg []byte, kind uint32) bool {
	size := 0
	switch kind {
	case TypeInitiation:
		size = InitiationSize
	case TypeResponse:
		size = ResponseSize
	case TypeCookie:
		size = CookieSize
	}
	return size != 0 && len(msg) == size && binary.LittleEndian.Uint32(msg) == kind
}

// Sender returns the index that the sender of an initiation or a response chose.
func Sender(msg []byte) uint32 { return binary.LittleEndian.Uint32(msg[4:]) }

// Receiver returns the index that a response or a cookie message is addressed to.
func Receiver(msg []byte) uint32 {
	if msg[0] == TypeResponse {
		return binary.LittleEndian.Uint32(msg[8:])
	}
	return binary.LittleEndian.Uint32(msg[4:])
}
