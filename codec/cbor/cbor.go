// Package cbor encodes arguments and results in CBOR (RFC 8949): smaller than
// JSON, faster, and without its loss of types. Bytes stay bytes, times keep
// their nanoseconds and zone, integers all their digits.
//
//	app, err := chicory.New(chicory.Config{URL: "memory:", Codec: cbor.Codec})
//
// Fields are named by tags `cbor:"name"` or, without them, `json:"name"`. A map
// that is decoded into an interface is a map[string]any. Nesting is limited to
// 256 levels, a map that names a key twice is refused.
package cbor

import (
	"reflect"

	"github.com/fxamacker/cbor/v2"

	"github.com/chicory-go/chicory/codec"
)

// ContentType is that of Codec: RFC 8949, section 9.5.
const ContentType = "application/cbor"

// Codec ignores unknown fields; its Strict form refuses them. It is safe for
// concurrent use.
var Codec codec.Codec = cborCodec{}

const (
	maxNesting = 256
	maxItems   = 1 << 27 // of one array or map; what the bytes hold is the real limit
)

var (
	encoder  = must(cbor.EncOptions{Sort: cbor.SortBytewiseLexical, Time: cbor.TimeRFC3339Nano, TimeTag: cbor.EncTagRequired}.EncMode())
	tolerant = must(options(cbor.ExtraDecErrorNone).DecMode())
	strict   = must(options(cbor.ExtraDecErrorUnknownField).DecMode())
)

func options(extra cbor.ExtraDecErrorCond) cbor.DecOptions {
	return cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: maxNesting, MaxArrayElements: maxItems,
		MaxMapPairs: maxItems, DefaultMapType: reflect.TypeFor[map[string]any](), ExtraReturnErrors: extra}
}

// must is for options that are constants.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

type cborCodec struct{ strict bool }

func (cborCodec) ContentType() string { return ContentType }

func (cborCodec) Append(dst []byte, v any) ([]byte, error) {
	b, err := encoder.Marshal(v)
	if err != nil {
		return dst, err
	}
	if dst == nil {
		return b, nil
	}
	return append(dst, b...), nil
}

func (c cborCodec) Decode(src []byte, v any) error {
	if c.strict {
		return strict.Unmarshal(src, v)
	}
	return tolerant.Unmarshal(src, v)
}

func (cborCodec) Strict() codec.Codec { return cborCodec{strict: true} }
