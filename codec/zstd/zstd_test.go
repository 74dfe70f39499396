package zstd_test

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"

	kzstd "github.com/klauspost/compress/zstd"

	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/codec/cbor"
	"github.com/chicory-go/chicory/codec/gob"
	"github.com/chicory-go/chicory/codec/internal/codectest"
	"github.com/chicory-go/chicory/codec/zstd"
)

func newCodec(t testing.TB, inner codec.Codec, o zstd.Options) codec.Codec {
	t.Helper()
	c, err := zstd.New(inner, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCodec(t *testing.T) {
	t.Parallel()
	codectest.Run(t, newCodec(t, codec.JSON, zstd.Options{}), "application/json+zstd")
	codectest.Run(t, newCodec(t, cbor.Codec, zstd.Options{Level: 22}), "application/cbor+zstd")
	codectest.Run(t, newCodec(t, gob.Codec, zstd.Options{Level: 1}), "application/x-gob+zstd")
}

func TestCompresses(t *testing.T) {
	t.Parallel()
	c := newCodec(t, codec.JSON, zstd.Options{})
	b, err := c.Append(nil, strings.Repeat("chicory ", 10_000))
	if err != nil || len(b) > 1000 {
		t.Errorf("80 kB of one word are %d bytes, %v", len(b), err)
	}
	if b, err = c.Append(nil, 7); err != nil || len(b) > 1+15 {
		t.Errorf("a number is %d bytes, %v", len(b), err)
	}
}

// TestBombs decodes small inputs that stand for more than the limit: with their
// size told, without it, in many frames, and as a lie.
func TestBombs(t *testing.T) { // not in parallel: it counts what is allocated
	const limit = 1 << 20
	c := newCodec(t, codec.JSON, zstd.Options{MaxSize: limit})
	enc, err := kzstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	told := enc.EncodeAll(make([]byte, 64<<20), nil)
	var streamed bytes.Buffer
	w, err := kzstd.NewWriter(&streamed)
	if err != nil {
		t.Fatal(err)
	}
	for range 64 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, bomb := range map[string][]byte{
		"size told":        told,
		"size not told":    streamed.Bytes(),
		"many frames":      bytes.Repeat(enc.EncodeAll(make([]byte, limit/2+1), nil), 2),
		"one byte too far": enc.EncodeAll([]byte(`"`+strings.Repeat("x", limit-1)+`"`), nil),
	} {
		var got string
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := c.Decode(bomb, &got)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, zstd.ErrTooLarge) {
			t.Errorf("%s: %d bytes were decoded: %v", name, len(bomb), err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 8*limit {
			t.Errorf("%s: %d bytes allocated, limit %d", name, n, limit)
		}
	}
	var got string
	if err := c.Decode(enc.EncodeAll([]byte(`"`+strings.Repeat("x", limit-2)+`"`), nil), &got); err != nil || len(got) != limit-2 {
		t.Errorf("a value of the limit: %d bytes, %v", len(got), err)
	}
}

func TestWhatNobodyCouldDecodeIsNotEncoded(t *testing.T) {
	t.Parallel()
	c := newCodec(t, codec.JSON, zstd.Options{MaxSize: 100})
	if _, err := c.Append(nil, strings.Repeat("x", 98)); err != nil {
		t.Error(err)
	}
	if b, err := c.Append([]byte("head"), strings.Repeat("x", 99)); !errors.Is(err, zstd.ErrTooLarge) || string(b) != "head" {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestRefusesOptions(t *testing.T) {
	t.Parallel()
	for _, o := range []zstd.Options{{Level: -1}, {Level: 23}, {MaxSize: -1}} {
		if _, err := zstd.New(codec.JSON, o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	c := newCodec(t, codec.JSON, zstd.Options{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 50 {
				b, err := c.Append(nil, []int{i})
				var got []int
				if err == nil {
					err = c.Decode(b, &got)
				}
				if err != nil || got[0] != i {
					t.Errorf("got %v, %v, want %d", got, err, i)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzDecode(f *testing.F) {
	codectest.Fuzz(f, newCodec(f, codec.JSON, zstd.Options{MaxSize: 1 << 16}))
}
