package wire

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// ErrDamaged is the error of a Decoder that misses a field.
var ErrDamaged = errors.New("the value is damaged")

// An Encoder appends fields to B.
type Encoder struct{ B []byte }

// Uint appends a field.
func (e *Encoder) Uint(v uint64) { e.B = binary.AppendUvarint(e.B, v) }

// Int appends a field.
func (e *Encoder) Int(v int64) { e.B = binary.AppendVarint(e.B, v) }

// Text appends a field.
func (e *Encoder) Text(s string) { e.Uint(uint64(len(s))); e.B = append(e.B, s...) }

// Flags appends up to 64 flags as one number.
func (e *Encoder) Flags(f ...bool) { e.Uint(packFlags(f)) }

// Bytes keeps nil apart from empty.
func (e *Encoder) Bytes(b []byte) {
	if b == nil {
		e.Uint(0)
		return
	}
	e.Uint(uint64(len(b)) + 1)
	e.B = append(e.B, b...)
}

func packFlags(f []bool) (v uint64) {
	for i, on := range f {
		if on {
			v |= 1 << i
		}
	}
	return v
}

// A Decoder takes fields off B. After the first that is not there, Err is set
// and all are zero. What it returns is a copy, but for Take.
type Decoder struct {
	B   []byte
	Err error
}

// Uint takes a field off.
func (d *Decoder) Uint() uint64 {
	v, n := binary.Uvarint(d.B)
	return number(d, v, n)
}

// Int takes a field off.
func (d *Decoder) Int() int64 {
	v, n := binary.Varint(d.B)
	return number(d, v, n)
}

func number[T int64 | uint64](d *Decoder, v T, n int) T {
	if n <= 0 {
		d.B, d.Err = nil, ErrDamaged
		return 0
	}
	d.B = d.B[n:]
	return v
}

// Take takes n bytes off, which remain B's.
func (d *Decoder) Take(n uint64) []byte {
	if n > uint64(len(d.B)) {
		d.B, d.Err = nil, ErrDamaged
		return nil
	}
	b := d.B[:n:n]
	d.B = d.B[n:]
	return b
}

// Text takes a field off.
func (d *Decoder) Text() string { return string(d.Take(d.Uint())) }

// Bytes takes a field off.
func (d *Decoder) Bytes() []byte {
	n := d.Uint()
	if n == 0 {
		return nil
	}
	return append([]byte{}, d.Take(n-1)...)
}

// Flags takes flags off.
func (d *Decoder) Flags(f ...*bool) {
	v := d.Uint()
	for i, p := range f {
		*p = v&(1<<i) != 0
	}
}

// Message appends a message, without its Record and Repeat.
func (e *Encoder) Message(m *driver.Message) {
	e.Text(m.ID)
	e.Text(m.Queue)
	e.Uint(uint64(m.Epoch))
	e.Uint(uint64(m.Seq))
	e.Uint(uint64(m.Attempt))
	e.Uint(uint64(m.Deliveries))
	e.Int(m.Deadline)
	e.Int(m.ParkedSince)
	e.Uint(uint64(m.Priority))
	e.Int(int64(m.Delay))
	e.Flags(m.Once, m.NoRecord)
	e.Text(m.ReplyTo)
	e.Bytes(m.Envelope)
	e.Dead(m.Dead)
}

// Message takes a message off.
func (d *Decoder) Message() *driver.Message {
	m := &driver.Message{
		ID:          d.Text(),
		Queue:       d.Text(),
		Epoch:       uint32(d.Uint()),
		Seq:         uint32(d.Uint()),
		Attempt:     uint32(d.Uint()),
		Deliveries:  uint32(d.Uint()),
		Deadline:    d.Int(),
		ParkedSince: d.Int(),
		Priority:    uint8(d.Uint()),
		Delay:       time.Duration(d.Int()),
	}
	d.Flags(&m.Once, &m.NoRecord)
	m.ReplyTo = d.Text()
	m.Envelope = d.Bytes()
	m.Dead = d.Dead()
	return m
}

// Dead appends what may be nil.
func (e *Encoder) Dead(i *driver.DeadInfo) {
	e.Flags(i != nil)
	if i == nil {
		return
	}
	for _, s := range []string{i.Reason, i.Name, i.Kind, i.Message, i.Stack, i.Worker} {
		e.Text(s)
	}
	e.Uint(uint64(i.Attempts))
	e.Uint(uint64(i.Deliveries))
	e.Int(i.FirstAt)
	e.Int(i.LastAt)
	e.Uint(uint64(len(i.History)))
	for _, a := range i.History {
		e.Uint(uint64(a.Attempt))
		e.Int(a.At)
		e.Text(a.Kind)
		e.Text(a.Message)
		e.Text(a.Worker)
	}
}

// Dead takes it off.
func (d *Decoder) Dead() *driver.DeadInfo {
	var there bool
	if d.Flags(&there); !there {
		return nil
	}
	i := &driver.DeadInfo{}
	for _, s := range []*string{&i.Reason, &i.Name, &i.Kind, &i.Message, &i.Stack, &i.Worker} {
		*s = d.Text()
	}
	i.Attempts, i.Deliveries = uint32(d.Uint()), uint32(d.Uint())
	i.FirstAt, i.LastAt = d.Int(), d.Int()
	for range d.Uint() {
		if d.Err != nil {
			break
		}
		i.History = append(i.History, driver.FailedAttempt{Attempt: uint32(d.Uint()),
			At: d.Int(), Kind: d.Text(), Message: d.Text(), Worker: d.Text()})
	}
	return i
}
