package bolt

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/store"
)

// Values begin with the version of their encoding and a checksum of the rest:
// bbolt has none of its pages. The rest is fields in a fixed order: numbers as
// varints, text and bytes with their length before them.

const (
	encodingVersion = 1
	headerSize      = 5 // version(1) crc32c(4)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	errDamaged = errors.New("the value is damaged")
	errNewer   = errors.New("the value was written by a newer version of Chicory")
)

// An encoder appends fields.
type encoder struct{ b []byte }

func newEncoder(size int) *encoder {
	return &encoder{append(make([]byte, 0, headerSize+size), encodingVersion, 0, 0, 0, 0)}
}

// value returns the value, its checksum filled in.
func (e *encoder) value() []byte {
	binary.BigEndian.PutUint32(e.b[1:], crc32.Checksum(e.b[headerSize:], castagnoli))
	return e.b
}

func (e *encoder) uint(v uint64)   { e.b = binary.AppendUvarint(e.b, v) }
func (e *encoder) int(v int64)     { e.b = binary.AppendVarint(e.b, v) }
func (e *encoder) text(s string)   { e.uint(uint64(len(s))); e.b = append(e.b, s...) }
func (e *encoder) flags(f ...bool) { e.uint(packFlags(f)) }

// bytes keeps nil apart from empty.
func (e *encoder) bytes(b []byte) {
	if b == nil {
		e.uint(0)
		return
	}
	e.uint(uint64(len(b)) + 1)
	e.b = append(e.b, b...)
}

func packFlags(f []bool) (v uint64) {
	for i, on := range f {
		if on {
			v |= 1 << i
		}
	}
	return v
}

// A decoder takes fields off. After the first that is not there, err is set
// and all are zero.
type decoder struct {
	b   []byte
	err error
}

func newDecoder(value []byte) *decoder {
	switch {
	case len(value) < headerSize:
		return &decoder{err: errDamaged}
	case value[0] > encodingVersion:
		return &decoder{err: errNewer}
	case binary.BigEndian.Uint32(value[1:]) != crc32.Checksum(value[headerSize:], castagnoli):
		return &decoder{err: errDamaged}
	}
	return &decoder{b: value[headerSize:]}
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	return number(d, v, n)
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	return number(d, v, n)
}

func number[T int64 | uint64](d *decoder, v T, n int) T {
	if n <= 0 {
		d.b, d.err = nil, errDamaged
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.b, d.err = nil, errDamaged
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) text() string { return string(d.take(d.uint())) }

func (d *decoder) bytes() []byte {
	n := d.uint()
	if n == 0 {
		return nil
	}
	return append([]byte{}, d.take(n-1)...)
}

func (d *decoder) flags(f ...*bool) {
	v := d.uint()
	for i, p := range f {
		*p = v&(1<<i) != 0
	}
}

func (e *encoder) message(m *driver.Message) {
	e.text(m.ID)
	e.text(m.Queue)
	e.uint(uint64(m.Epoch))
	e.uint(uint64(m.Seq))
	e.uint(uint64(m.Attempt))
	e.uint(uint64(m.Deliveries))
	e.int(m.Deadline)
	e.int(m.ParkedSince)
	e.uint(uint64(m.Priority))
	e.int(int64(m.Delay))
	e.flags(m.Once, m.NoRecord)
	e.text(m.ReplyTo)
	e.bytes(m.Envelope)
	e.dead(m.Dead)
}

func (d *decoder) message() *driver.Message {
	m := &driver.Message{
		ID:          d.text(),
		Queue:       d.text(),
		Epoch:       uint32(d.uint()),
		Seq:         uint32(d.uint()),
		Attempt:     uint32(d.uint()),
		Deliveries:  uint32(d.uint()),
		Deadline:    d.int(),
		ParkedSince: d.int(),
		Priority:    uint8(d.uint()),
		Delay:       time.Duration(d.int()),
	}
	d.flags(&m.Once, &m.NoRecord)
	m.ReplyTo = d.text()
	m.Envelope = d.bytes()
	m.Dead = d.dead()
	return m
}

func (e *encoder) dead(i *driver.DeadInfo) {
	e.flags(i != nil)
	if i == nil {
		return
	}
	for _, s := range []string{i.Reason, i.Name, i.Kind, i.Message, i.Stack, i.Worker} {
		e.text(s)
	}
	e.uint(uint64(i.Attempts))
	e.uint(uint64(i.Deliveries))
	e.int(i.FirstAt)
	e.int(i.LastAt)
	e.uint(uint64(len(i.History)))
	for _, a := range i.History {
		e.uint(uint64(a.Attempt))
		e.int(a.At)
		e.text(a.Kind)
		e.text(a.Message)
		e.text(a.Worker)
	}
}

func (d *decoder) dead() *driver.DeadInfo {
	var there bool
	if d.flags(&there); !there {
		return nil
	}
	i := &driver.DeadInfo{}
	for _, s := range []*string{&i.Reason, &i.Name, &i.Kind, &i.Message, &i.Stack, &i.Worker} {
		*s = d.text()
	}
	i.Attempts, i.Deliveries = uint32(d.uint()), uint32(d.uint())
	i.FirstAt, i.LastAt = d.int(), d.int()
	for range d.uint() {
		if d.err != nil {
			break
		}
		i.History = append(i.History, driver.FailedAttempt{Attempt: uint32(d.uint()),
			At: d.int(), Kind: d.text(), Message: d.text(), Worker: d.text()})
	}
	return i
}

func encodeTask(t *store.Task) []byte {
	m := t.Message
	e := newEncoder(64 + len(m.ID) + len(m.Queue) + len(m.ReplyTo) + len(m.Envelope))
	e.int(t.Since)
	e.int(t.Due)
	e.message(m)
	return e.value()
}

func decodeTask(seq uint64, value []byte) (*store.Task, error) {
	d := newDecoder(value)
	t := &store.Task{Seq: seq, Since: d.int(), Due: d.int(), Message: d.message()}
	return t, d.err
}

func encodeDead(m *driver.Message) []byte {
	e := newEncoder(256 + len(m.Envelope) + len(m.Dead.Stack))
	e.message(m)
	return e.value()
}

func decodeDead(value []byte) (*driver.Message, error) {
	d := newDecoder(value)
	m := d.message()
	if d.err == nil && m.Dead == nil {
		d.err = errDamaged
	}
	return m, d.err
}

func encodeRecord(r *driver.Record, expires int64) []byte {
	e := newEncoder(96 + len(r.ID) + len(r.Body))
	e.int(expires)
	e.text(r.ID)
	e.uint(uint64(r.Epoch))
	e.uint(uint64(r.Seq))
	e.uint(uint64(r.Attempt))
	e.text(string(r.State))
	e.uint(r.Run)
	e.flags(r.Once, r.Provisional, r.Held, r.Skeleton, r.Next != nil)
	if r.Next != nil {
		e.message(r.Next)
	}
	e.int(r.Due)
	e.dead(r.Error)
	e.text(r.ContentType)
	e.bytes(r.Body)
	e.int(int64(r.TTL))
	e.text(r.ReplyTo)
	e.text(r.Copy)
	e.uint(uint64(r.Count))
	for _, at := range []int64{r.PendingAt, r.StartedAt, r.RetriedAt, r.FinishedAt} {
		e.int(at)
	}
	return e.value()
}

// recordExpires returns when a record expires, and does not look at the rest.
func recordExpires(value []byte) int64 {
	if len(value) < headerSize || value[0] != encodingVersion {
		return 0
	}
	d := decoder{b: value[headerSize:]}
	return d.int()
}

func decodeRecord(value []byte) (r *driver.Record, expires int64, err error) {
	d := newDecoder(value)
	expires = d.int()
	r = &driver.Record{}
	r.ID = d.text()
	r.Epoch, r.Seq, r.Attempt = uint32(d.uint()), uint32(d.uint()), uint32(d.uint())
	r.State, r.Run = driver.State(d.text()), d.uint()
	var next bool
	d.flags(&r.Once, &r.Provisional, &r.Held, &r.Skeleton, &next)
	if next {
		r.Next = d.message()
	}
	r.Due = d.int()
	r.Error = d.dead()
	r.ContentType = d.text()
	r.Body = d.bytes()
	r.TTL = time.Duration(d.int())
	r.ReplyTo = d.text()
	r.Copy = d.text()
	r.Count = int(d.uint())
	for _, at := range []*int64{&r.PendingAt, &r.StartedAt, &r.RetriedAt, &r.FinishedAt} {
		*at = d.int()
	}
	return r, expires, d.err
}

// A stamped value is a control key's, or a queue's lease.
func encodeStamped(value []byte, stamp int64) []byte {
	e := newEncoder(12 + len(value))
	e.int(stamp)
	e.bytes(value)
	return e.value()
}

func decodeStamped(value []byte) (v []byte, stamp int64, err error) {
	d := newDecoder(value)
	stamp, v = d.int(), d.bytes()
	return v, stamp, d.err
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
