package bolt

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/store"
	"github.com/chicory-go/chicory/internal/wire"
)

// Values begin with the version of their encoding and a checksum of the rest:
// bbolt has none of its pages. The rest is fields in a fixed order: numbers as
// varints, text and bytes with their length before them.

const (
	encodingVersion = 1
	headerSize      = 5 // version(1) crc32c(4)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errNewer = errors.New("the value was written by a newer version of Chicory")

// An encoder makes a value.
type encoder struct{ wire.Encoder }

func newEncoder(size int) *encoder {
	return &encoder{wire.Encoder{B: append(make([]byte, 0, headerSize+size), encodingVersion, 0, 0, 0, 0)}}
}

// value returns the value, its checksum filled in.
func (e *encoder) value() []byte {
	binary.BigEndian.PutUint32(e.B[1:], crc32.Checksum(e.B[headerSize:], castagnoli))
	return e.B
}

func newDecoder(value []byte) *wire.Decoder {
	switch {
	case len(value) < headerSize:
		return &wire.Decoder{Err: wire.ErrDamaged}
	case value[0] > encodingVersion:
		return &wire.Decoder{Err: errNewer}
	case binary.BigEndian.Uint32(value[1:]) != crc32.Checksum(value[headerSize:], castagnoli):
		return &wire.Decoder{Err: wire.ErrDamaged}
	}
	return &wire.Decoder{B: value[headerSize:]}
}

func encodeTask(t *store.Task) []byte {
	m := t.Message
	e := newEncoder(64 + len(m.ID) + len(m.Queue) + len(m.ReplyTo) + len(m.Envelope))
	e.Int(t.Since)
	e.Int(t.Due)
	e.Message(m)
	return e.value()
}

func decodeTask(seq uint64, value []byte) (*store.Task, error) {
	d := newDecoder(value)
	t := &store.Task{Seq: seq, Since: d.Int(), Due: d.Int(), Message: d.Message()}
	return t, d.Err
}

func encodeDead(m *driver.Message) []byte {
	e := newEncoder(256 + len(m.Envelope) + len(m.Dead.Stack))
	e.Message(m)
	return e.value()
}

func decodeDead(value []byte) (*driver.Message, error) {
	d := newDecoder(value)
	m := d.Message()
	if d.Err == nil && m.Dead == nil {
		d.Err = wire.ErrDamaged
	}
	return m, d.Err
}

func encodeRecord(r *driver.Record, expires int64) []byte {
	e := newEncoder(96 + len(r.ID) + len(r.Body))
	e.Int(expires)
	e.Text(r.ID)
	e.Uint(uint64(r.Epoch))
	e.Uint(uint64(r.Seq))
	e.Uint(uint64(r.Attempt))
	e.Text(string(r.State))
	e.Uint(r.Run)
	e.Flags(r.Once, r.Provisional, r.Held, r.Skeleton, r.Next != nil)
	if r.Next != nil {
		e.Message(r.Next)
	}
	e.Int(r.Due)
	e.Dead(r.Error)
	e.Text(r.ContentType)
	e.Bytes(r.Body)
	e.Int(int64(r.TTL))
	e.Text(r.ReplyTo)
	e.Text(r.Copy)
	e.Uint(uint64(r.Count))
	for _, at := range []int64{r.PendingAt, r.StartedAt, r.RetriedAt, r.FinishedAt} {
		e.Int(at)
	}
	return e.value()
}

// recordExpires returns when a record expires, and does not look at the rest.
func recordExpires(value []byte) int64 {
	if len(value) < headerSize || value[0] != encodingVersion {
		return 0
	}
	d := wire.Decoder{B: value[headerSize:]}
	return d.Int()
}

func decodeRecord(value []byte) (r *driver.Record, expires int64, err error) {
	d := newDecoder(value)
	expires = d.Int()
	r = &driver.Record{}
	r.ID = d.Text()
	r.Epoch, r.Seq, r.Attempt = uint32(d.Uint()), uint32(d.Uint()), uint32(d.Uint())
	r.State, r.Run = driver.State(d.Text()), d.Uint()
	var next bool
	d.Flags(&r.Once, &r.Provisional, &r.Held, &r.Skeleton, &next)
	if next {
		r.Next = d.Message()
	}
	r.Due = d.Int()
	r.Error = d.Dead()
	r.ContentType = d.Text()
	r.Body = d.Bytes()
	r.TTL = time.Duration(d.Int())
	r.ReplyTo = d.Text()
	r.Copy = d.Text()
	r.Count = int(d.Uint())
	for _, at := range []*int64{&r.PendingAt, &r.StartedAt, &r.RetriedAt, &r.FinishedAt} {
		*at = d.Int()
	}
	return r, expires, d.Err
}

// A stamped value is a control key's, or a queue's lease.
func encodeStamped(value []byte, stamp int64) []byte {
	e := newEncoder(12 + len(value))
	e.Int(stamp)
	e.Bytes(value)
	return e.value()
}

func decodeStamped(value []byte) (v []byte, stamp int64, err error) {
	d := newDecoder(value)
	stamp, v = d.Int(), d.Bytes()
	return v, stamp, d.Err
}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

func seqOf(key []byte) (uint64, bool) {
	if len(key) != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(key), true
}

// name returns the name of a namespace's bucket; split takes it apart.
func (k kind) name(namespace string) []byte {
	return slices.Concat([]byte(namespace), []byte{'/', byte(k)})
}

func split(name []byte) (namespace string, k kind, ok bool) {
	if n := len(name); n >= 2 && name[n-2] == '/' {
		return string(name[:n-2]), kind(name[n-1]), true
	}
	return "", 0, false
}
