package codec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
)

// A Codec encodes values. It is safe for concurrent use.
type Codec interface {
	// ContentType names the encoding on the wire, such as "application/json".
	ContentType() string
	// Append appends the encoding of v to dst.
	Append(dst []byte, v any) ([]byte, error)
	// Decode decodes all of src into v, a pointer. It must not keep src.
	Decode(src []byte, v any) error
}

// A Stricter codec can refuse what its tolerant form ignores.
type Stricter interface {
	// Strict returns the codec that refuses unknown fields.
	Strict() Codec
}

// JSON is encoding/json. It ignores unknown fields, so that a rolling deploy
// loses nothing; its Strict form refuses them.
var JSON Codec = jsonCodec{}

// ErrUnknown matches the error of Lookup.
var ErrUnknown = errors.New("codec: unknown content type")

var (
	mu     sync.RWMutex
	codecs = map[string]Codec{JSON.ContentType(): JSON}
)

// Register makes c the codec of its content type in all apps of the process.
// It panics if there is one.
func Register(c Codec) {
	mu.Lock()
	defer mu.Unlock()
	if _, ok := codecs[c.ContentType()]; ok {
		panic("codec: Register called twice for " + c.ContentType())
	}
	codecs[c.ContentType()] = c
}

// Lookup returns the codec of a content type: the first of own, then of the
// registered ones, that has it. Its error matches ErrUnknown and names those
// that are known.
func Lookup(contentType string, own ...Codec) (Codec, error) {
	for _, c := range own {
		if c.ContentType() == contentType {
			return c, nil
		}
	}
	mu.RLock()
	defer mu.RUnlock()
	if c, ok := codecs[contentType]; ok {
		return c, nil
	}
	known := slices.Collect(maps.Keys(codecs))
	for _, c := range own {
		known = append(known, c.ContentType())
	}
	slices.Sort(known)
	return nil, fmt.Errorf("%w %q (known: %s)", ErrUnknown, contentType, strings.Join(slices.Compact(known), ", "))
}

type jsonCodec struct{ strict bool }

func (jsonCodec) ContentType() string { return "application/json" }

func (jsonCodec) Append(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return dst, err
	}
	if dst == nil {
		return b, nil
	}
	return append(dst, b...), nil
}

func (c jsonCodec) Decode(src []byte, v any) error {
	if !c.strict {
		return json.Unmarshal(src, v)
	}
	dec := json.NewDecoder(bytes.NewReader(src))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("json: data after the value")
	}
	return nil
}

func (jsonCodec) Strict() Codec { return jsonCodec{strict: true} }
