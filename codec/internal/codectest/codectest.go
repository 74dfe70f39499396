// Package codectest proves what every codec promises. Only tests import it.
package codectest

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory/codec"
)

// Inner is part of a Value.
type Inner struct {
	X    []string
	Next *Inner
}

// A Value has fields of the kinds that arguments have.
type Value struct {
	A     int
	Big   int64
	Text  string
	Bytes []byte
	Map   map[string]Inner
	Ptr   *float64
	At    time.Time
	On    bool
}

// Later is a Value of a newer producer.
type Later struct {
	A     int
	Later string
}

// Full returns a Value without a zero field.
func Full() Value {
	f := 1.5
	return Value{A: -7, Big: 1<<62 + 1, Text: "ü\x00", Bytes: []byte{0, 255}, Ptr: &f, On: true,
		Map: map[string]Inner{"k": {X: []string{"a", ""}, Next: &Inner{X: []string{"b"}}}},
		At:  time.Date(2026, 11, 26, 1, 2, 3, 456_789_012, time.FixedZone("", 3600))}
}

// Run proves c, whose content type is want.
func Run(t *testing.T, c codec.Codec, want string) {
	t.Helper()
	if c.ContentType() != want {
		t.Errorf("content type %q, want %q", c.ContentType(), want)
	}
	t.Run("RoundTrip", func(t *testing.T) { roundTrip(t, c) })
	t.Run("Append", func(t *testing.T) { appends(t, c) })
	t.Run("Memory", func(t *testing.T) { memory(t, c) })
	t.Run("Damage", func(t *testing.T) { damage(t, c) })
	t.Run("Tolerance", func(t *testing.T) { tolerance(t, c) })
}

func encode(t *testing.T, c codec.Codec, v any) []byte {
	t.Helper()
	b, err := c.Append(nil, v)
	if err != nil {
		t.Fatalf("encode %T: %v", v, err)
	}
	return b
}

func roundTrip(t *testing.T, c codec.Codec) {
	want := Full()
	var got Value
	if err := c.Decode(encode(t, c, want), &got); err != nil {
		t.Fatal(err)
	}
	if !got.At.Equal(want.At) {
		t.Errorf("time: got %v, want %v", got.At, want.At)
	}
	got.At = want.At
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	same(t, c, 42)
	same(t, c, 0)
	same(t, c, "")
	same(t, c, true)
	same(t, c, 2.5)
	same(t, c, struct{}{})
	same(t, c, []int{1, 2, 3})
	same(t, c, map[string]int{"a": 1})
	same(t, c, Value{})
	same(t, c, strings.Repeat("long ", 100_000))
	var p *Inner
	if err := c.Decode(encode(t, c, &Inner{X: []string{"x"}}), &p); err != nil || p == nil || p.X[0] != "x" {
		t.Errorf("pointer: got %+v, %v", p, err)
	}
}

func same[T any](t *testing.T, c codec.Codec, want T) {
	t.Helper()
	var got T
	if err := c.Decode(encode(t, c, want), &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%T: got %v, %v; want %v", want, got, err, want)
	}
}

func appends(t *testing.T, c codec.Codec) {
	head := append(make([]byte, 0, 1000), "head"...)
	b, err := c.Append(head, Full())
	if err != nil || !bytes.HasPrefix(b, head) {
		t.Fatalf("got %.20q, %v, want it after what was there", b, err)
	}
	var got Value
	if err := c.Decode(b[len(head):], &got); err != nil || got.Text != Full().Text {
		t.Errorf("got %+v, %v", got, err)
	}
	if b, err := c.Append(head, make(chan int)); err == nil || string(b) != "head" {
		t.Errorf("of a channel: got %q, %v, want an error and what was there", b, err)
	}
}

// memory changes the bytes after they were decoded.
func memory(t *testing.T, c codec.Codec) {
	b := encode(t, c, Full())
	before := bytes.Clone(b)
	var got Value
	if err := c.Decode(b, &got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, before) {
		t.Error("decoding changed its source")
	}
	for i := range b {
		b[i] = 0xaa
	}
	if want := Full(); got.Text != want.Text || !bytes.Equal(got.Bytes, want.Bytes) || got.Map["k"].X[0] != "a" {
		t.Errorf("what was decoded lives in the source: %+v", got)
	}
}

// damage cuts a value short, and adds to it.
func damage(t *testing.T, c codec.Codec) {
	b := encode(t, c, Full())
	for n := range b {
		if err := c.Decode(b[:n], new(Value)); err == nil {
			t.Errorf("the first %d of %d bytes were decoded", n, len(b))
		}
	}
	if err := c.Decode(append(bytes.Clone(b), b...), new(Value)); err == nil {
		t.Error("data after the value was passed over")
	}
	if err := c.Decode(encode(t, c, "text"), new(Value)); err == nil {
		t.Error("a text was decoded as a struct")
	}
}

func tolerance(t *testing.T, c codec.Codec) {
	newer, older := encode(t, c, Later{A: 7, Later: "x"}), encode(t, c, struct{ A int }{7})
	var v struct{ A int }
	if err := c.Decode(newer, &v); err != nil || v.A != 7 {
		t.Errorf("an unknown field: got %+v, %v, want it ignored", v, err)
	}
	var l Later
	if err := c.Decode(older, &l); err != nil || l.A != 7 {
		t.Errorf("a field that is not there: got %+v, %v", l, err)
	}
	s, ok := c.(codec.Stricter)
	if !ok {
		return
	}
	strict := s.Strict()
	if strict.ContentType() != c.ContentType() {
		t.Errorf("strict form has content type %q, tolerant %q", strict.ContentType(), c.ContentType())
	}
	if err := strict.Decode(newer, &v); err == nil {
		t.Error("strict form accepted an unknown field")
	}
	if err := strict.Decode(older, &l); err != nil {
		t.Errorf("strict form: %v", err)
	}
}

// Fuzz decodes what the fuzzer makes into values of several kinds. What can be
// decoded must survive another round.
func Fuzz(f *testing.F, c codec.Codec) {
	for _, v := range []any{Full(), Value{}, Later{A: 1}, 42, "text", []int{1, 2}, map[string]int{"a": 1}, []any(nil)} {
		b, err := c.Append(nil, v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		again(t, c, b, new(Value))
		again(t, c, b, new(map[string]int))
		again(t, c, b, new([]string))
		for _, v := range []any{new(any), new(int), new(string), new([]Inner), new(time.Time)} {
			_ = c.Decode(b, v) // must return
		}
	})
}

func again[T any](t *testing.T, c codec.Codec, b []byte, v *T) {
	if c.Decode(b, v) != nil {
		return
	}
	out, err := c.Append(nil, *v)
	if err != nil {
		return // such as a time that no encoding has
	}
	if err := c.Decode(out, new(T)); err != nil {
		t.Fatalf("%+v was decoded and encoded, and cannot be decoded again: %v", *v, err)
	}
}
