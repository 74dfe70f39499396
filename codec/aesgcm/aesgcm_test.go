package aesgcm_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/codec/aesgcm"
	"github.com/chicory-go/chicory/codec/cbor"
	"github.com/chicory-go/chicory/codec/gob"
	"github.com/chicory-go/chicory/codec/internal/codectest"
	"github.com/chicory-go/chicory/codec/zstd"
)

func key(id string) aesgcm.Key {
	return aesgcm.Key{ID: id, Secret: bytes.Repeat([]byte(id[:1]), 32)}
}

func newCodec(t testing.TB, inner codec.Codec, k aesgcm.Key, older ...aesgcm.Key) codec.Codec {
	t.Helper()
	c, err := aesgcm.New(inner, k, older...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func encode(t *testing.T, c codec.Codec, v any) []byte {
	t.Helper()
	b, err := c.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCodec(t *testing.T) {
	t.Parallel()
	codectest.Run(t, newCodec(t, codec.JSON, key("a")), "application/json+aesgcm")
	codectest.Run(t, newCodec(t, gob.Codec, aesgcm.Key{ID: strings.Repeat("i", 255), Secret: make([]byte, 16)}), "application/x-gob+aesgcm")
	small, err := zstd.New(cbor.Codec, zstd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	codectest.Run(t, newCodec(t, small, key("a"), key("b")), "application/cbor+zstd+aesgcm")
}

func TestHidesAndIsNeverTheSame(t *testing.T) {
	t.Parallel()
	c := newCodec(t, codec.JSON, key("a"))
	one, other := encode(t, c, "secret words"), encode(t, c, "secret words")
	if bytes.Contains(one, []byte("secret")) || bytes.Equal(one, other) {
		t.Errorf("got %q and %q", one, other)
	}
	if want := len(`"secret words"`) + 30 + len("a"); len(one) != want {
		t.Errorf("%d bytes, want %d", len(one), want)
	}
}

// TestRotation goes through a change of keys, with values of before and after.
func TestRotation(t *testing.T) {
	t.Parallel()
	before := newCodec(t, codec.JSON, key("old"))
	accepts := newCodec(t, codec.JSON, key("old"), key("new"))
	sends := newCodec(t, codec.JSON, key("new"), key("old"))
	after := newCodec(t, codec.JSON, key("new"))
	old, fresh := encode(t, before, 1), encode(t, sends, 2)
	tests := []struct {
		name  string
		c     codec.Codec
		bytes []byte
		want  int
		err   error
	}{
		{"before, old", before, old, 1, nil},
		{"accepts, old", accepts, old, 1, nil},
		{"sends, old", sends, old, 1, nil},
		{"accepts, new", accepts, fresh, 2, nil},
		{"after, new", after, fresh, 2, nil},
		{"before, new", before, fresh, 0, aesgcm.ErrUnknownKey},
		{"after, old", after, old, 0, aesgcm.ErrUnknownKey},
		{"accepts encodes with the old", before, encode(t, accepts, 3), 3, nil},
		{"same id, another secret", newCodec(t, codec.JSON, aesgcm.Key{ID: "old", Secret: make([]byte, 32)}), old, 0, aesgcm.ErrAuthentication},
	}
	for _, tt := range tests {
		got := 0
		if err := tt.c.Decode(tt.bytes, &got); !errors.Is(err, tt.err) || got != tt.want {
			t.Errorf("%s: got %d, %v; want %d, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
}

// TestTampering flips every bit of a value, and passes it off as another
// content type.
func TestTampering(t *testing.T) {
	t.Parallel()
	c := newCodec(t, codec.JSON, key("a"), key("b"))
	b := encode(t, c, "text")
	for i := range 8 * len(b) {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		got := "untouched"
		err := c.Decode(bad, &got)
		if !errors.Is(err, aesgcm.ErrAuthentication) && !errors.Is(err, aesgcm.ErrUnknownKey) || got != "untouched" {
			t.Errorf("bit %d flipped: got %q, %v", i, got, err)
		}
	}
	for n := range b {
		if err := c.Decode(b[:n], new(string)); !errors.Is(err, aesgcm.ErrAuthentication) && !errors.Is(err, aesgcm.ErrUnknownKey) {
			t.Errorf("%d of %d bytes: got %v", n, len(b), err)
		}
	}
	other := newCodec(t, cbor.Codec, key("a"))
	if err := other.Decode(b, new(any)); !errors.Is(err, aesgcm.ErrAuthentication) {
		t.Errorf("as another content type: %v", err)
	}
}

func TestRefusesKeys(t *testing.T) {
	t.Parallel()
	tests := map[string][]aesgcm.Key{
		"no id":            {{Secret: make([]byte, 32)}},
		"long id":          {{ID: strings.Repeat("x", 256), Secret: make([]byte, 32)}},
		"no secret":        {{ID: "a"}},
		"short secret":     {{ID: "a", Secret: []byte("password")}},
		"one id twice":     {key("a"), key("b"), {ID: "a", Secret: make([]byte, 32)}},
		"older, no secret": {key("a"), {ID: "b"}},
	}
	for name, keys := range tests {
		_, err := aesgcm.New(codec.JSON, keys[0], keys[1:]...)
		if err == nil || strings.Contains(err.Error(), "password") {
			t.Errorf("%s: got %v, want an error without the secret", name, err)
		}
	}
}

func TestKeepsNoSecretOfTheCaller(t *testing.T) {
	t.Parallel()
	k := key("a")
	c := newCodec(t, codec.JSON, k)
	clear(k.Secret)
	var got int
	if err := newCodec(t, codec.JSON, key("a")).Decode(encode(t, c, 7), &got); err != nil || got != 7 {
		t.Errorf("got %d, %v: the codec uses the caller's memory", got, err)
	}
}

func FuzzDecode(f *testing.F) { codectest.Fuzz(f, newCodec(f, codec.JSON, key("a"))) }
