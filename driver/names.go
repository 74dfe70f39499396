package driver

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of names, in bytes.
const (
	MaxID        = 128 // of a task's id
	MaxQueue     = 200 // of a queue's name
	MaxNamespace = 64  // of a namespace
)

// ErrName matches the errors of CheckID, CheckQueue and CheckNamespace.
var ErrName = errors.New("driver: invalid name")

// CheckID reports whether id is 1 to 128 bytes of [A-Za-z0-9._:-].
func CheckID(id string) error {
	if id == "" || len(id) > MaxID {
		return fmt.Errorf("%w: id has %d bytes, want 1 to %d", ErrName, len(id), MaxID)
	}
	for i := range len(id) {
		if !plain(id[i]) && id[i] != ':' {
			return fmt.Errorf("%w: id %q: byte %q is not one of A-Z a-z 0-9 . _ : -", ErrName, id, id[i])
		}
	}
	return nil
}

// CheckQueue reports whether name is valid UTF-8 of 1 to 200 bytes.
func CheckQueue(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: queue is empty", ErrName)
	case len(name) > MaxQueue:
		return fmt.Errorf("%w: queue has %d bytes, want at most %d", ErrName, len(name), MaxQueue)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: queue %q is not UTF-8", ErrName, name)
	}
	return nil
}

// CheckNamespace reports whether ns is 1 to 64 bytes of [a-z0-9_-].
func CheckNamespace(ns string) error {
	if ns == "" || len(ns) > MaxNamespace {
		return fmt.Errorf("%w: namespace has %d bytes, want 1 to %d", ErrName, len(ns), MaxNamespace)
	}
	if i := strings.IndexFunc(ns, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' || r == '-')
	}); i >= 0 {
		return fmt.Errorf("%w: namespace %q: want [a-z0-9_-]", ErrName, ns)
	}
	return nil
}

// Escape makes a queue name safe for keys, routing keys and file names: bytes
// outside [A-Za-z0-9._-] become %XX, and so does a dot at the start. It is
// injective, so that two queues never meet.
func Escape(name string) string {
	const digits = "0123456789ABCDEF"
	safe := func(i int) bool { return plain(name[i]) && (i > 0 || name[0] != '.') }
	var b strings.Builder
	for i := range len(name) {
		if c := name[i]; safe(i) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}

// EscapeMax is Escape for stores that limit the length of a key: a name that
// would be longer than max bytes ends in its SHA-256 instead, of which 32
// hexadecimal digits are kept. Max is 40 at least.
func EscapeMax(name string, max int) string {
	const digits, mark = 32, "%h" // Escape writes no %h
	e := Escape(name)
	if len(e) <= max {
		return e
	}
	sum := sha256.Sum256([]byte(name))
	return e[:max-digits-len(mark)] + mark + hex.EncodeToString(sum[:])[:digits]
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
}
