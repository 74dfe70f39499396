package msgpack

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// nest is n arrays in each other, the innermost empty.
func nest(n int) []byte { return append(bytes.Repeat([]byte{0x91}, n-1), 0x90) }

func TestBombsAreRefusedUnread(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		src  []byte
		want error
	}{
		{"array of 4 billion", []byte{0xdd, 0xff, 0xff, 0xff, 0xff}, errShort},
		{"map of 4 billion", []byte{0xdf, 0xff, 0xff, 0xff, 0xff}, errShort},
		{"bytes of 4 billion", []byte{0xc6, 0xff, 0xff, 0xff, 0xff}, errShort},
		{"text of 4 billion", []byte{0xdb, 0xff, 0xff, 0xff, 0xff}, errShort},
		{"extension of 4 billion", []byte{0xc9, 0xff, 0xff, 0xff, 0xff, 1}, errShort},
		{"a million arrays", nest(1_000_000), errNested},
		{"one array too deep", nest(maxNesting + 1), errNested},
		{"unused", []byte{0xc1}, errFormat},
		{"nothing", nil, errShort},
		{"a length cut short", []byte{0xdd, 0xff}, errShort},
		{"an extension cut short", []byte{0xd8, 1}, errShort},
		{"deep enough", nest(maxNesting), nil},
	}
	for _, tt := range tests {
		if err := check(tt.src); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if err := Codec.Decode(tt.src, new(any)); !errors.Is(err, tt.want) {
			t.Errorf("%s: Decode: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestCheckKnowsEveryFormat takes what the library writes for sizes at the
// edges of the formats, whole and cut short by a byte.
func TestCheckKnowsEveryFormat(t *testing.T) {
	t.Parallel()
	var values []any
	for _, n := range []int{0, 1, 15, 16, 31, 32, 255, 256, 65535, 65536} {
		m := map[int]int{}
		for i := range n {
			m[i] = i
		}
		values = append(values, strings.Repeat("x", n), make([]byte, n), make([]int, n), m)
	}
	values = append(values, nil, true, false, float32(1), 2.5)
	for shift := range 64 {
		values = append(values, uint64(1)<<shift, -(int64(1) << (shift % 63)), int64(1)<<(shift%63))
	}
	for _, compact := range []bool{false, true} {
		for _, v := range values {
			var b bytes.Buffer
			enc := msgpack.NewEncoder(&b)
			enc.UseCompactInts(compact)
			if err := enc.Encode(v); err != nil {
				t.Fatal(err)
			}
			if err := check(b.Bytes()); err != nil {
				t.Errorf("%T, %d bytes, 0x%x…: %v", v, b.Len(), b.Bytes()[0], err)
			}
			if err := check(b.Bytes()[:b.Len()-1]); !errors.Is(err, errShort) {
				t.Errorf("%T, %d bytes, 0x%x… cut short: %v", v, b.Len(), b.Bytes()[0], err)
			}
		}
	}
	for size, head := range map[int][]byte{1: {0xd4}, 2: {0xd5}, 4: {0xd6}, 8: {0xd7}, 16: {0xd8}, 3: {0xc7, 3}, 300: {0xc8, 1, 44}, 70000: {0xc9, 0, 1, 0x11, 0x70}} {
		ext := append(append(head, 5), make([]byte, size)...)
		if err := check(ext); err != nil {
			t.Errorf("extension of %d bytes: %v", size, err)
		}
		if err := check(ext[:len(ext)-1]); !errors.Is(err, errShort) {
			t.Errorf("extension of %d bytes cut short: %v", size, err)
		}
	}
}
