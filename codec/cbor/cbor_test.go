package cbor_test

import (
	"bytes"
	"testing"

	"github.com/chicory-go/chicory/codec/cbor"
	"github.com/chicory-go/chicory/codec/internal/codectest"
)

func TestCodec(t *testing.T) {
	t.Parallel()
	codectest.Run(t, cbor.Codec, "application/cbor")
}

func FuzzDecode(f *testing.F) { codectest.Fuzz(f, cbor.Codec) }

func TestRefusesWhatWouldHurt(t *testing.T) {
	t.Parallel()
	for name, src := range map[string][]byte{
		"array of 2^63":      {0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"a million arrays":   append(bytes.Repeat([]byte{0x81}, 1_000_000), 0x80),
		"a key twice":        {0xa2, 0x61, 'a', 1, 0x61, 'a', 2},
		"a million tags":     append(bytes.Repeat([]byte{0xc1}, 1_000_000), 0),
		"bytes of 4 billion": {0x5a, 0xff, 0xff, 0xff, 0xff},
	} {
		if err := cbor.Codec.Decode(src, new(any)); err == nil {
			t.Errorf("%s was decoded", name)
		}
	}
}

func TestWhatInterfacesHold(t *testing.T) {
	t.Parallel()
	b, err := cbor.Codec.Append(nil, map[string]any{"a": map[string]int{"b": 1}})
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if err := cbor.Codec.Decode(b, &got); err != nil {
		t.Fatal(err)
	}
	if m, ok := got.(map[string]any)["a"].(map[string]any); !ok || m["b"] != uint64(1) {
		t.Errorf("got %#v, want maps of strings", got)
	}
}
