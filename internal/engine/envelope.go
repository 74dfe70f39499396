package engine

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/chicory-go/chicory/driver"
)

// EnvelopeVersion is the newest version of the envelope that this code reads.
const EnvelopeVersion = 1

// ErrNewerEnvelope: the envelope was written by a newer producer; park it.
var ErrNewerEnvelope = errors.New("chicory: envelope of a newer version")

// ErrEnvelope: the bytes are no envelope.
var ErrEnvelope = errors.New("chicory: undecodable envelope")

// Field numbers of the envelope, a message in protocol buffers' wire format
// (https://protobuf.dev/programming-guides/encoding/). docs/envelope.proto
// describes it. Numbers are never used again for something else.
const (
	fVersion     protowire.Number = 1
	fName        protowire.Number = 2
	fContentType protowire.Number = 3
	fBody        protowire.Number = 4
	fHeader      protowire.Number = 5 // {1: key, 2: value}
	fTimeout     protowire.Number = 6 // ms, zigzag; negative: none
	fRetries     protowire.Number = 7
	fBackoff     protowire.Number = 8 // {1: curve, 2: base ms, 3: max ms, 4: factor, 5: jitter}
	fTTL         protowire.Number = 9 // ms, zigzag; negative: for ever
	fIgnore      protowire.Number = 10
	fDead        protowire.Number = 11
	fHistory     protowire.Number = 12 // {1: attempt, 2: at ms, 3: kind, 4: message, 5: worker}
)

// maxHistory bounds the failed attempts an envelope remembers: the newest.
const maxHistory = 20

// Envelope is what core sends around a task's argument.
type Envelope struct {
	Name        string
	ContentType string
	Body        []byte
	Headers     map[string]string
	Policy      Policy // what was set per call
	History     []driver.FailedAttempt
	Unknown     []byte // fields of a newer writer, kept on republish
}

// Append appends the encoding of e to dst.
func (e *Envelope) Append(dst []byte) []byte {
	dst = appendUint(dst, fVersion, EnvelopeVersion)
	dst = appendString(dst, fName, e.Name)
	dst = appendString(dst, fContentType, e.ContentType)
	for k, v := range e.Headers {
		h := appendString(appendString(nil, 1, k), 2, v)
		dst = appendBytes(dst, fHeader, h)
	}
	dst = e.appendPolicy(dst)
	for i := range e.History {
		dst = appendBytes(dst, fHistory, appendAttempt(nil, &e.History[i]))
	}
	dst = append(dst, e.Unknown...)
	return appendBytes(dst, fBody, e.Body)
}

// Encode returns the encoding of e.
func (e *Envelope) Encode() []byte {
	return e.Append(make([]byte, 0, 64+len(e.Name)+len(e.ContentType)+len(e.Body)))
}

func (e *Envelope) appendPolicy(dst []byte) []byte {
	p := &e.Policy
	if p.Has(FieldTimeout) {
		dst = appendUint(dst, fTimeout, protowire.EncodeZigZag(millis(p.Timeout)))
	}
	if p.Has(FieldRetries) {
		dst = appendUint(dst, fRetries, uint64(p.Retries))
	}
	if p.Has(FieldBackoff) {
		dst = appendBytes(dst, fBackoff, appendBackoff(nil, p.Backoff))
	}
	if p.Has(FieldTTL) {
		dst = appendUint(dst, fTTL, protowire.EncodeZigZag(millis(p.TTL)))
	}
	if p.Has(FieldIgnore) {
		dst = appendUint(dst, fIgnore, protowire.EncodeBool(p.IgnoreResult))
	}
	if p.Has(FieldDead) {
		dst = appendUint(dst, fDead, protowire.EncodeBool(p.DeadLetter))
	}
	return dst
}

// millis rounds up, so that what is set stays set; negative becomes -1.
func millis(d time.Duration) int64 {
	if d < 0 {
		return -1
	}
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

// duration is the reverse of millis. It clamps what does not fit.
func duration(ms int64) time.Duration {
	if ms < 0 {
		return -1
	}
	return time.Duration(min(ms, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
}

func appendBackoff(dst []byte, b Backoff) []byte {
	dst = appendUint(dst, 1, uint64(b.Curve))
	dst = appendUint(dst, 2, uint64(millis(b.Base)))
	dst = appendUint(dst, 3, uint64(max(0, millis(b.Max))))
	dst = protowire.AppendFixed64(protowire.AppendTag(dst, 4, protowire.Fixed64Type), math.Float64bits(b.Factor))
	return protowire.AppendFixed64(protowire.AppendTag(dst, 5, protowire.Fixed64Type), math.Float64bits(b.Jitter))
}

func appendAttempt(dst []byte, a *driver.FailedAttempt) []byte {
	dst = appendUint(dst, 1, uint64(a.Attempt))
	dst = appendUint(dst, 2, uint64(a.At))
	dst = appendString(dst, 3, a.Kind)
	dst = appendString(dst, 4, a.Message)
	return appendString(dst, 5, a.Worker)
}

func appendUint(dst []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, n, protowire.VarintType), v)
}

func appendString(dst []byte, n protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, n, protowire.BytesType), v)
}

func appendBytes(dst []byte, n protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, n, protowire.BytesType), v)
}

// DecodeEnvelope decodes b into e, whose Body then shares memory with b. It
// returns ErrNewerEnvelope or an error that wraps ErrEnvelope.
func DecodeEnvelope(b []byte, e *Envelope) error {
	*e = Envelope{}
	version := uint64(0)
	fs := fields{rest: b}
	for fs.next() {
		if fs.num != fVersion {
			fs.fail(e.decodeField(&fs))
		} else if version = fs.uint; version > EnvelopeVersion {
			return ErrNewerEnvelope
		}
	}
	switch {
	case fs.err != nil:
		return fmt.Errorf("%w: %w", ErrEnvelope, fs.err)
	case version == 0 || e.Name == "":
		return fmt.Errorf("%w: no version or no task name", ErrEnvelope)
	}
	return nil
}

func (e *Envelope) decodeField(f *fields) error {
	p := &e.Policy
	switch f.num {
	case fName:
		e.Name = string(f.bytes)
	case fContentType:
		e.ContentType = contentTypeString(f.bytes)
	case fBody:
		e.Body = f.bytes
	case fHeader:
		return e.decodeHeader(f.bytes)
	case fTimeout:
		p.Timeout, p.Set = duration(protowire.DecodeZigZag(f.uint)), p.Set|FieldTimeout
	case fRetries:
		p.Retries, p.Set = int(min(f.uint, math.MaxInt32)), p.Set|FieldRetries
	case fBackoff:
		p.Set |= FieldBackoff
		return decodeBackoff(f.bytes, &p.Backoff)
	case fTTL:
		p.TTL, p.Set = duration(protowire.DecodeZigZag(f.uint)), p.Set|FieldTTL
	case fIgnore:
		p.IgnoreResult, p.Set = f.uint != 0, p.Set|FieldIgnore
	case fDead:
		p.DeadLetter, p.Set = f.uint != 0, p.Set|FieldDead
	case fHistory:
		return e.decodeAttempt(f.bytes)
	default:
		e.Unknown = append(e.Unknown, f.raw...)
	}
	return nil
}

// contentTypeString spares the copy of the content type nearly all tasks have.
func contentTypeString(b []byte) string {
	if string(b) == "application/json" {
		return "application/json"
	}
	return string(b)
}

func (e *Envelope) decodeHeader(b []byte) error {
	var k, v string
	fs := fields{rest: b}
	for fs.next() {
		switch fs.num {
		case 1:
			k = string(fs.bytes)
		case 2:
			v = string(fs.bytes)
		}
	}
	if e.Headers == nil {
		e.Headers = map[string]string{}
	}
	e.Headers[k] = v
	return fs.err
}

func decodeBackoff(b []byte, dst *Backoff) error {
	fs := fields{rest: b}
	for fs.next() {
		switch fs.num {
		case 1:
			dst.Curve = Curve(fs.uint)
		case 2:
			dst.Base = duration(int64(min(fs.uint, math.MaxInt64)))
		case 3:
			dst.Max = duration(int64(min(fs.uint, math.MaxInt64)))
		case 4:
			dst.Factor = finite(fs.uint)
		case 5:
			dst.Jitter = min(1, max(0, finite(fs.uint)))
		}
	}
	return fs.err
}

func finite(bits uint64) float64 {
	v := math.Float64frombits(bits)
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}

func (e *Envelope) decodeAttempt(b []byte) error {
	var a driver.FailedAttempt
	fs := fields{rest: b}
	for fs.next() {
		switch fs.num {
		case 1:
			a.Attempt = uint32(fs.uint)
		case 2:
			a.At = int64(fs.uint)
		case 3:
			a.Kind = string(fs.bytes)
		case 4:
			a.Message = string(fs.bytes)
		case 5:
			a.Worker = string(fs.bytes)
		}
	}
	e.History = append(e.History, a)
	return fs.err
}

// AddHistory appends a, forgetting the oldest beyond the limit.
func AddHistory(h []driver.FailedAttempt, a driver.FailedAttempt) []driver.FailedAttempt {
	h = append(slices.Clip(h), a)
	if len(h) > maxHistory {
		h = h[len(h)-maxHistory:]
	}
	return h
}

// fields reads the fields of a wire message one by one.
type fields struct {
	num   protowire.Number
	uint  uint64 // of numbers
	bytes []byte // of the others
	raw   []byte // the whole field
	rest  []byte
	err   error
}

// next reads the next field; false at the end or after an error.
func (f *fields) next() bool {
	if f.err != nil || len(f.rest) == 0 {
		return false
	}
	num, typ, n := protowire.ConsumeTag(f.rest)
	if n < 0 {
		return f.fail(protowire.ParseError(n))
	}
	f.num, f.uint, f.bytes = num, 0, nil
	m := 0
	switch typ {
	case protowire.VarintType:
		f.uint, m = protowire.ConsumeVarint(f.rest[n:])
	case protowire.Fixed64Type:
		f.uint, m = protowire.ConsumeFixed64(f.rest[n:])
	case protowire.BytesType:
		f.bytes, m = protowire.ConsumeBytes(f.rest[n:])
	default:
		m = protowire.ConsumeFieldValue(num, typ, f.rest[n:])
	}
	if m < 0 {
		return f.fail(protowire.ParseError(m))
	}
	f.raw, f.rest = f.rest[:n+m], f.rest[n+m:]
	return true
}

// fail ends the reading if err is not nil, and reports whether it goes on.
func (f *fields) fail(err error) bool {
	f.err = err
	return err == nil
}
