package msgpack

import (
	"errors"
)

const maxNesting = 256

var (
	errShort  = errors.New("msgpack: the value is cut short")
	errNested = errors.New("msgpack: nested too deeply")
	errFormat = errors.New("msgpack: byte 0xc1, which is never used")
)

// check reports whether src starts with one whole value of bounded depth
// (https://github.com/msgpack/msgpack/blob/master/spec.md).
func check(src []byte) error {
	var open [maxNesting]uint64 // values still to come, by depth
	open[0] = 1
	for depth := 0; depth >= 0; {
		if open[depth] == 0 {
			depth--
			continue
		}
		open[depth]--
		size, values, err := token(src)
		switch {
		case err != nil:
			return err
		case size > uint64(len(src)) || values > uint64(len(src))-size: // a value has a byte or more
			return errShort
		}
		src = src[size:]
		if values == 0 {
			continue
		}
		if depth++; depth == maxNesting {
			return errNested
		}
		open[depth] = values
	}
	return nil
}

// token returns the size of the format byte at the head of src with its
// payload, and how many values follow that belong to it.
func token(src []byte) (size, values uint64, err error) {
	if len(src) == 0 {
		return 0, 0, errShort
	}
	switch c := src[0]; {
	case c <= 0x7f || c >= 0xe0: // fixint
		return 1, 0, nil
	case c <= 0x8f: // fixmap
		return 1, 2 * uint64(c&0x0f), nil
	case c <= 0x9f: // fixarray
		return 1, uint64(c & 0x0f), nil
	case c <= 0xbf: // fixstr
		return 1 + uint64(c&0x1f), 0, nil
	case c == 0xc1:
		return 0, 0, errFormat
	case c <= 0xc3: // nil, false, true
		return 1, 0, nil
	case c <= 0xc6: // bin 8, 16, 32
		return sized(src, 1<<(c-0xc4), 0)
	case c <= 0xc9: // ext 8, 16, 32: a type before the data
		return sized(src, 1<<(c-0xc7), 1)
	case c <= 0xcb: // float 32, 64
		return 1 + 4<<(c-0xca), 0, nil
	case c <= 0xcf: // uint 8, 16, 32, 64
		return 1 + 1<<(c-0xcc), 0, nil
	case c <= 0xd3: // int 8, 16, 32, 64
		return 1 + 1<<(c-0xd0), 0, nil
	case c <= 0xd8: // fixext 1, 2, 4, 8, 16
		return 2 + 1<<(c-0xd4), 0, nil
	case c <= 0xdb: // str 8, 16, 32
		return sized(src, 1<<(c-0xd9), 0)
	case c <= 0xdd: // array 16, 32
		values, err = number(src, 2<<(c-0xdc))
		return 1 + 2<<(c-0xdc), values, err
	default: // map 16, 32
		values, err = number(src, 2<<(c-0xde))
		return 1 + 2<<(c-0xde), 2 * values, err
	}
}

// sized is token of a format byte that n bytes of length follow, then extra
// bytes, then the data.
func sized(src []byte, n, extra uint64) (size, values uint64, err error) {
	size, err = number(src, n)
	return 1 + n + extra + size, 0, err
}

// number reads the n bytes after the format byte, big-endian.
func number(src []byte, n uint64) (v uint64, err error) {
	if n > uint64(len(src))-1 {
		return 0, errShort
	}
	for _, b := range src[1 : 1+n] {
		v = v<<8 | uint64(b)
	}
	return v, nil
}
