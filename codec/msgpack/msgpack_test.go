package msgpack_test

import (
	"testing"

	"github.com/chicory-go/chicory/codec/internal/codectest"
	"github.com/chicory-go/chicory/codec/msgpack"
)

func TestCodec(t *testing.T) {
	t.Parallel()
	codectest.Run(t, msgpack.Codec, "application/vnd.msgpack")
}

func FuzzDecode(f *testing.F) { codectest.Fuzz(f, msgpack.Codec) }
