// Package gob encodes arguments and results with encoding/gob, for Go programs
// on both sides. Each value carries the description of its type, which makes
// small ones several times larger than in other encodings, and slower.
//
//	app, err := chicory.New(chicory.Config{URL: "memory:", Codec: gob.Codec})
//
// What an interface holds must be registered with encoding/gob, and an argument
// or result that is itself an interface cannot be decoded. Fields of the
// sender that the receiver lacks are ignored; there is no strict form, so that
// StrictFields and ValidationStrict are refused. encoding/gob is not made for
// bytes of people one does not trust: give write access to the store only to
// whom may crash its workers.
package gob

import (
	"bytes"
	"encoding/gob"
	"errors"
	"reflect"

	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/codec/internal/guard"
)

// ContentType is that of Codec.
const ContentType = "application/x-gob"

// Codec is encoding/gob. A struct without fields, such as chicory.None, which
// that refuses, is no bytes at all. It is safe for concurrent use.
var Codec codec.Codec = gobCodec{}

type gobCodec struct{}

func (gobCodec) ContentType() string { return ContentType }

func (gobCodec) Append(dst []byte, v any) ([]byte, error) {
	if t := reflect.TypeOf(v); t != nil && empty(t) {
		return dst, nil
	}
	b := bytes.NewBuffer(dst)
	// It panics at nil pointers.
	if err := guard.Call("gob", func() error { return gob.NewEncoder(b).Encode(v) }); err != nil {
		return dst, err
	}
	return b.Bytes(), nil
}

func (gobCodec) Decode(src []byte, v any) error {
	if t := reflect.TypeOf(v); t != nil && t.Kind() == reflect.Pointer && empty(t.Elem()) {
		if len(src) > 0 {
			return errors.New("gob: a value where there is none")
		}
		return nil
	}
	r := bytes.NewReader(src) // a ByteReader: no more of it is read than belongs to the value
	if err := guard.Call("gob", func() error { return gob.NewDecoder(r).Decode(v) }); err != nil {
		return err
	}
	if r.Len() > 0 {
		return errors.New("gob: data after the value")
	}
	return nil
}

func empty(t reflect.Type) bool { return t.Kind() == reflect.Struct && t.NumField() == 0 }
