package bolt

import bbolt "go.etcd.io/bbolt"

// Nothing is changed in place: what drops a message writes pages anew, with
// whatever else is on them, before it frees the old ones. So that a full file can
// be worked off, it holds a value that is of no use but for its room.

// reserveBucket holds that value alone.
var (
	reserveBucket = []byte("reserve")
	keyReserve    = []byte("room")
)

const (
	leastReserve = 64 << 10
	mostReserve  = 4 << 20 // unless values are large
	neighbours   = 5       // values that may have to move when one is dropped
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
	return size, b.Put(keyReserve, make([]byte, size))
}

// release gives the room up. All it takes is two pages, which every commit
// leaves.
func release(tx *bbolt.Tx) error {
	if b := tx.Bucket(reserveBucket); b != nil {
		return b.Delete(keyReserve)
	}
	return nil
}

// reserved returns the size of the room that is kept.
func reserved(tx *bbolt.Tx) int {
	if b := tx.Bucket(reserveBucket); b != nil {
		return len(b.Get(keyReserve))
	}
	return 0
}
