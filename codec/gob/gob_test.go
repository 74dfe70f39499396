package gob_test

import (
	"testing"

	"github.com/chicory-go/chicory/codec/gob"
	"github.com/chicory-go/chicory/codec/internal/codectest"
)

func TestCodec(t *testing.T) {
	t.Parallel()
	codectest.Run(t, gob.Codec, "application/x-gob")
}

func FuzzDecode(f *testing.F) { codectest.Fuzz(f, gob.Codec) }

func TestRefusesWhatGobHasNoBytesFor(t *testing.T) {
	t.Parallel()
	var none *codectest.Value
	for name, v := range map[string]any{"nil": nil, "nil pointer": none, "function": func() {}, "unexported fields": struct{ a int }{1}} {
		if b, err := gob.Codec.Append([]byte("head"), v); err == nil || string(b) != "head" {
			t.Errorf("%s: got %q, %v", name, b, err)
		}
	}
	if err := gob.Codec.Decode([]byte{1}, new(struct{})); err == nil {
		t.Error("bytes were decoded as a struct without fields")
	}
	if err := gob.Codec.Decode(nil, new(int)); err == nil {
		t.Error("nothing was decoded as a number")
	}
}
