package codec_test

import (
	"errors"
	"testing"

	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/codec/internal/codectest"
)

// flip is a transform that flips all bits, after a byte of its own.
type flip struct{ suffix string }

func (f flip) Suffix() string { return f.suffix }

func (f flip) Append(dst, src []byte, contentType string) ([]byte, error) {
	dst = append(dst, byte(len(contentType)))
	for _, b := range src {
		dst = append(dst, ^b)
	}
	return dst, nil
}

func (f flip) Undo(src []byte, contentType string) ([]byte, error) {
	if len(src) == 0 || src[0] != byte(len(contentType)) {
		return nil, errors.New("flip: not mine")
	}
	out := make([]byte, 0, len(src))
	for _, b := range src[1:] {
		out = append(out, ^b)
	}
	return out, nil
}

func TestJSON(t *testing.T) {
	t.Parallel()
	codectest.Run(t, codec.JSON, "application/json")
}

func TestWrap(t *testing.T) {
	t.Parallel()
	once := codec.Wrap(codec.JSON, flip{"a"})
	codectest.Run(t, once, "application/json+a")
	codectest.Run(t, codec.Wrap(once, flip{"b"}), "application/json+a+b")
}

// tolerant has no strict form.
type tolerant struct{ codec.Codec }

func TestWrapIsAsStrictAsWhatItWraps(t *testing.T) {
	t.Parallel()
	if _, ok := codec.Wrap(codec.JSON, flip{"a"}).(codec.Stricter); !ok {
		t.Error("the strict form of JSON was lost")
	}
	if _, ok := codec.Wrap(tolerant{codec.JSON}, flip{"a"}).(codec.Stricter); ok {
		t.Error("a strict form where there is none")
	}
}

func TestLookupPrefersOwn(t *testing.T) {
	t.Parallel()
	own := codec.Wrap(codec.JSON, flip{"own"})
	if c, err := codec.Lookup("application/json+own", own); err != nil || c != own {
		t.Errorf("got %v, %v", c, err)
	}
	if _, err := codec.Lookup("application/json+own"); !errors.Is(err, codec.ErrUnknown) {
		t.Errorf("a codec of one app is known to others: %v", err)
	}
	_, err := codec.Lookup("x/none", own, codec.JSON)
	if want := `codec: unknown content type "x/none" (known: application/json, application/json+own`; err == nil || len(err.Error()) < len(want) || err.Error()[:len(want)] != want {
		t.Errorf("got %v, want what is known, each once", err)
	}
}

func FuzzDecodeJSON(f *testing.F) { codectest.Fuzz(f, codec.JSON) }
