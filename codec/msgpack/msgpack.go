// Package msgpack encodes arguments and results in MessagePack
// (https://msgpack.org), which many languages read.
//
//	app, err := chicory.New(chicory.Config{URL: "memory:", Codec: msgpack.Codec})
//
// Fields are named by tags `msgpack:"name"` or, without them, `json:"name"`. A
// map that is decoded into an interface is a map[string]any. Nesting is limited
// to 256 levels.
package msgpack

import (
	"bytes"
	"errors"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/codec/internal/guard"
)

// ContentType is that of Codec, as registered with IANA.
const ContentType = "application/vnd.msgpack"

// Codec ignores unknown fields; its Strict form refuses them. It is safe for
// concurrent use.
var Codec codec.Codec = msgpackCodec{}

type msgpackCodec struct{ strict bool }

func (msgpackCodec) ContentType() string { return ContentType }

func (msgpackCodec) Append(dst []byte, v any) ([]byte, error) {
	b := bytes.NewBuffer(dst)
	enc := msgpack.NewEncoder(b)
	enc.SetCustomStructTag("json")
	enc.UseCompactInts(true)
	enc.SetSortMapKeys(true)
	if err := guard.Call("msgpack", func() error { return enc.Encode(v) }); err != nil {
		return dst, err
	}
	return b.Bytes(), nil
}

func (c msgpackCodec) Decode(src []byte, v any) error {
	// The library believes lengths, and nests as deep as it is told to.
	if err := check(src); err != nil {
		return err
	}
	r := bytes.NewReader(src)
	dec := msgpack.NewDecoder(r)
	dec.SetCustomStructTag("json")
	dec.DisallowUnknownFields(c.strict)
	if err := guard.Call("msgpack", func() error { return dec.Decode(v) }); err != nil {
		return err
	}
	if r.Len() > 0 {
		return errors.New("msgpack: data after the value")
	}
	return nil
}

func (msgpackCodec) Strict() codec.Codec { return msgpackCodec{strict: true} }
