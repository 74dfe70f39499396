package redis

import (
	"encoding/binary"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/wire"
)

// A message begins with what scripts read:
//
//	flags(1) epoch(4) seq(4) attempt(4) deliveries(4) id(1+)
//
// flags are 1 once, 2 no record, and 4 for version 0.0, attempt 1, no deliveries, which are
// left out then. The rest is fields of package wire.
func encodeMessage(m *driver.Message) []byte {
	e := wire.Encoder{B: make([]byte, 0, 64+len(m.ID)+len(m.ReplyTo)+len(m.Envelope))}
	first := m.Epoch == 0 && m.Seq == 0 && m.Attempt == 1 && m.Deliveries == 0
	e.B = append(e.B, flag(m.Once, 1)|flag(m.NoRecord, 2)|flag(first, 4))
	if !first {
		for _, v := range []uint32{m.Epoch, m.Seq, m.Attempt, m.Deliveries} {
			e.B = binary.BigEndian.AppendUint32(e.B, v)
		}
	}
	e.B = appendShort(e.B, m.ID)
	e.Int(m.Deadline)
	e.Int(m.ParkedSince)
	e.Uint(uint64(m.Priority))
	e.Text(m.ReplyTo)
	e.Bytes(m.Envelope)
	return e.B
}

func flag(on bool, bit byte) byte {
	if on {
		return bit
	}
	return 0
}

func appendShort(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

// decodeMessage fills d, but for its queue, count and copy.
func decodeMessage(b []byte, d *driver.Delivery) error {
	r := wire.Decoder{B: b}
	flags := r.Take(1)
	if flags == nil {
		return r.Err
	}
	d.Once, d.NoRecord, d.Attempt = flags[0]&1 != 0, flags[0]&2 != 0, 1
	if flags[0]&4 == 0 {
		for _, v := range []*uint32{&d.Epoch, &d.Seq, &d.Attempt, &d.Deliveries} {
			if n := r.Take(4); n != nil {
				*v = binary.BigEndian.Uint32(n)
			}
		}
	}
	d.ID = short(&r)
	d.Deadline, d.ParkedSince = r.Int(), r.Int()
	d.Priority = uint8(r.Uint())
	d.ReplyTo = r.Text()
	d.Envelope = r.Bytes()
	return r.Err
}

func short(r *wire.Decoder) string {
	n := r.Take(1)
	if n == nil {
		return ""
	}
	return string(r.Take(uint64(n[0])))
}

// level maps a priority to one of three: 0 to 2, 3 to 6, 7 to 9.
func level(priority uint8) int {
	switch {
	case priority < 3:
		return 0
	case priority < 7:
		return 1
	}
	return 2
}

// millis rounds up.
func millis(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64((d-1)/time.Millisecond) + 1
}

// states are numbered for scripts.
var states = []driver.State{"", driver.Pending, driver.Started, driver.Retry, driver.Success,
	driver.Failure, driver.DeadLettered, driver.Expired, driver.Cancelled}

func stateNumber(s driver.State) byte {
	for i, state := range states {
		if s == state {
			return byte(i)
		}
	}
	return 0
}

// encodeUpdate is an update as scripts have it, see lua/record.lua.
func encodeUpdate(u *driver.Update) []byte {
	b := make([]byte, 0, 128+len(u.ReplyTo)+len(u.Body))
	b = append(b, stateNumber(u.State), flag(u.Once, 1)|flag(u.Provisional, 2)|flag(plain(u), 4))
	for _, v := range []uint32{u.Epoch, u.Seq, u.Attempt} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	ttl := uint64(millis(u.TTL))
	b = binary.BigEndian.AppendUint64(b, u.Run)
	b = binary.BigEndian.AppendUint64(b, ttl)
	b = binary.BigEndian.AppendUint64(b, uint64(max(0, u.Due)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(u.ReplyTo)))
	b = append(b, u.ReplyTo...)
	e := wire.Encoder{B: binary.BigEndian.AppendUint64(b, ttl)}
	e.Int(int64(u.TTL))
	e.Int(u.Due)
	e.Dead(u.Error)
	e.Text(u.ContentType)
	e.Bytes(u.Body)
	e.Flags(u.Next != nil)
	if u.Next != nil {
		e.Message(u.Next)
	}
	return e.B
}

// plain reports whether u says no more than that a task waits for the first time, and
// since when, whom to tell, when it is due.
func plain(u *driver.Update) bool {
	return u.State == driver.Pending && u.Epoch == 0 && u.Seq == 0 && u.Attempt == 1 && u.Run == 0 && u.TTL == 0 &&
		u.Due >= 0 && u.Due < 1<<47 && !u.Once && !u.Provisional && u.Error == nil && u.ContentType == "" && u.Body == nil && u.Next == nil
}

const recordHead = 75 // bytes of a record before its copy

// decodeRecord returns the record of id, nil if there is none.
func decodeRecord(id string, b []byte) (*driver.Record, error) {
	if len(b) < recordHead {
		return nil, wire.ErrDamaged
	}
	if b[9] == 0 || int(b[9]) >= len(states) {
		return nil, nil
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	u64 := func(at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) }
	r := &driver.Record{Held: b[10]&4 != 0, Skeleton: b[10]&8 != 0, Count: int(u32(23)),
		StartedAt: u64(43), PendingAt: u64(51), RetriedAt: u64(59), FinishedAt: u64(67)}
	r.Update = driver.Update{ID: id, State: states[b[9]], Once: b[10]&1 != 0, Provisional: b[10]&2 != 0,
		Epoch: u32(11), Seq: u32(15), Attempt: u32(19), Run: uint64(u64(27))}
	d := wire.Decoder{B: b[recordHead:]}
	r.Copy = short(&d)
	if n := d.Take(2); n != nil {
		r.ReplyTo = string(d.Take(uint64(binary.BigEndian.Uint16(n))))
	}
	if d.Err != nil || len(d.B) == 0 || r.State == driver.Started { // what follows was of its PENDING
		return r, d.Err
	}
	d.Take(8)
	r.TTL, r.Due, r.Error = time.Duration(d.Int()), d.Int(), d.Dead()
	r.ContentType, r.Body = d.Text(), d.Bytes()
	var next bool
	if d.Flags(&next); next {
		r.Next = d.Message()
	}
	if !r.Skeleton || d.Err != nil {
		return r, d.Err
	}
	s := driver.SkeletonOf(r)
	return s, nil
}

func encodeDead(m *driver.Message) []byte {
	e := wire.Encoder{B: make([]byte, 0, 256+len(m.Envelope)+len(m.Dead.Stack))}
	e.Message(m)
	return e.B
}

func decodeDead(b []byte) (*driver.Message, error) {
	d := wire.Decoder{B: b}
	m := d.Message()
	if d.Err == nil && m.Dead == nil {
		d.Err = wire.ErrDamaged
	}
	return m, d.Err
}
