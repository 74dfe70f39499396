package bolt

import (
	"encoding/binary"

	bbolt "go.etcd.io/bbolt"
)

// Nothing is changed in place: what drops a message writes pages anew, with
// whatever else is on them, before it frees the old ones. So that a full file can
// be worked off, it holds values that are of no use but for their room. They are
// no larger than others, as free pages need not lie together.

// reserveBucket holds those values alone, by number.
var reserveBucket = []byte("reserve")

const (
	leastReserve = 64 << 10
	mostReserve  = 4 << 20    // unless values are large
	leastPiece   = 8<<10 - 32 // two fill four pages
	neighbours   = 5          // values that may have to move when one is dropped
)

// reserve makes the room that is kept large enough for the file, whose largest
// value has largest bytes, and returns its size. It was has bytes.
func reserve(tx *bbolt.Tx, has, largest int) (int, error) {
	size := leastReserve
	for size < neighbours*largest || size < mostReserve && int64(size) < tx.Size()/16 {
		size *= 2
	}
	if has >= size {
		return has, nil
	}
	b, err := tx.CreateBucketIfNotExists(reserveBucket)
	if err != nil {
		return has, err
	}
	piece := make([]byte, max(leastPiece, largest))
	for has < size {
		n, err := b.NextSequence()
		if err != nil {
			return has, err
		}
		if err := b.Put(binary.BigEndian.AppendUint64(nil, n), piece); err != nil {
			return has, err
		}
		has += len(piece)
	}
	return has, nil
}

// release gives the room up. All it takes is two pages, which every commit
// leaves.
func release(tx *bbolt.Tx) error {
	if tx.Bucket(reserveBucket) == nil {
		return nil
	}
	return tx.DeleteBucket(reserveBucket)
}

// reserved returns the size of the room that is kept.
func reserved(tx *bbolt.Tx) (size int) {
	if b := tx.Bucket(reserveBucket); b != nil {
		b.ForEach(func(_, piece []byte) error {
			size += len(piece)
			return nil
		})
	}
	return size
}
