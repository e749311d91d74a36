package stamps

import (
	"encoding/binary"
	"hash/crc32"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"

	"github.com/loden-net/loden/backend/engine/wg/noise"
)

// Record is the newest timestamp of a peer. The zero timestamp says that the peer was removed, or
// removed and configured anew.
type Record struct {
	Peer  noise.Key
	Stamp tai64n.Timestamp
}

// recordSize is the size of a record in the file, in bytes: public key, timestamp, CRC-32C of both.
const recordSize = 32 + tai64n.TimestampSize + 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendRecord appends the form of r in the file.
func appendRecord(b []byte, r Record) []byte {
	start := len(b)
	b = append(append(b, r.Peer[:]...), r.Stamp[:]...)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// Decode reads the content of a file. A later record of a peer replaces an earlier record. damaged
// counts the bytes that are no record: the torn end of a file, or the content of another program.
func Decode(b []byte) (newest map[noise.Key]tai64n.Timestamp, damaged int) {
	newest = map[noise.Key]tai64n.Timestamp{}
	for ; len(b) >= recordSize; b = b[recordSize:] {
		const sum = recordSize - 4
		if binary.LittleEndian.Uint32(b[sum:]) != crc32.Checksum(b[:sum], castagnoli) {
			damaged += recordSize
			continue
		}
		r := Record{Peer: noise.Key(b[:32]), Stamp: tai64n.Timestamp(b[32:sum])}
		if r.Stamp == (tai64n.Timestamp{}) {
			delete(newest, r.Peer)
		} else {
			newest[r.Peer] = r.Stamp
		}
	}
	return newest, damaged + len(b)
}

// maxAhead is how far the clock of a peer may be ahead of this host's clock for its recorded
// timestamp to count.
const maxAhead = time.Hour

// ahead reports whether a timestamp is more than maxAhead in the future.
func ahead(stamp tai64n.Timestamp, now time.Time) bool {
	const epoch = 0x400000000000000a // 1970, with 10 leap seconds: tai64n
	return binary.BigEndian.Uint64(stamp[:]) > epoch+uint64(now.Add(maxAhead).Unix())
}
