// Package zstd compresses what another codec encodes, with Zstandard
// (RFC 8878).
//
//	c, err := zstd.New(codec.JSON, zstd.Options{})
//	app, err := chicory.New(chicory.Config{URL: "memory:", Codec: c})
//
// The content type gets the suffix "+zstd": "application/json+zstd". It pays for
// arguments and results of some hundred bytes and more; a short one grows by
// about 15 bytes. Config.MaxPayload and MaxResult count compressed bytes,
// Options.MaxSize what they stand for, so that a few bytes cannot fill a
// worker's memory.
package zstd

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/chicory-go/chicory/codec"
)

// Options of a codec. The zero value is the documented default.
type Options struct {
	// Level is that of the zstd tool, 1 (fastest) to 22 (smallest); 0 is 3. The
	// library has fewer levels and takes the nearest.
	Level int
	// MaxSize limits the bytes before compression, where they are encoded and
	// where they are decoded: 0 is 16 MiB.
	MaxSize int
}

const (
	defaultLevel   = 3
	maxLevel       = 22
	defaultMaxSize = 16 << 20
)

// ErrTooLarge: the value is larger than Options.MaxSize. No more than that was
// decompressed.
var ErrTooLarge = errors.New("zstd: value is too large")

// New returns a codec that compresses what inner encodes. It is safe for
// concurrent use and has a strict form if inner has one.
func New(inner codec.Codec, o Options) (codec.Codec, error) {
	if o.Level == 0 {
		o.Level = defaultLevel
	}
	if o.MaxSize == 0 {
		o.MaxSize = defaultMaxSize
	}
	if o.Level < 1 || o.Level > maxLevel || o.MaxSize < 1 {
		return nil, fmt.Errorf("zstd: Level %d, MaxSize %d: want 1 to %d, and more than 0 bytes", o.Level, o.MaxSize, maxLevel)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(o.Level)), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(uint64(o.MaxSize)), zstd.WithDecoderConcurrency(0))
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return codec.Wrap(inner, &transform{enc: enc, dec: dec, max: o.MaxSize}), nil
}

// transform is a codec.Transform. Its coders have no goroutines as long as they
// have no stream.
type transform struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
	max int
}

func (t *transform) Suffix() string { return "zstd" }

func (t *transform) Append(dst, src []byte, _ string) ([]byte, error) {
	if len(src) > t.max {
		return dst, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, len(src), t.max)
	}
	if len(src) == 0 {
		return append(dst, emptyFrame...), nil // for which EncodeAll writes nothing
	}
	return t.enc.EncodeAll(src, dst), nil
}

// emptyFrame is a frame of no bytes: magic number, a single segment of size 0,
// and a last raw block of size 0.
var emptyFrame = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00}

func (t *transform) Undo(src []byte, _ string) ([]byte, error) {
	if len(src) == 0 {
		return nil, errors.New("zstd: no frame")
	}
	b, err := t.dec.DecodeAll(src, nil)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, fmt.Errorf("%w: limit %d: %w", ErrTooLarge, t.max, err)
	case err != nil:
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return b, nil
}
