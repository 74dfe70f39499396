package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// MayBeURL reports whether a text may be a URL or a piece of one, and hold a password.
// No error repeats such a text.
func MayBeURL(text string) bool { return strings.Contains(text, "@") || strings.Contains(text, "://") }

// Shown returns text as an error may repeat it: instead of it, if it may be a URL.
func Shown(text, instead string) string {
	if MayBeURL(text) {
		return instead
	}
	return text
}

// ReadFile returns what a regular file of at most limit bytes holds, without a byte order
// mark. Its error shows no path that may be a URL.
func ReadFile(path string, limit int64) ([]byte, error) {
	b, err := readFile(path, limit)
	if err != nil {
		var pe *fs.PathError // repeats the path
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return nil, fmt.Errorf("%s: %w", Shown(path, "what may be a URL"), err)
	}
	return bytes.TrimPrefix(b, []byte("\ufeff")), nil
}

func readFile(path string, limit int64) ([]byte, error) {
	// To open a pipe would wait for its writer.
	switch info, err := os.Stat(path); {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("is a directory, want a regular file")
	case !info.Mode().IsRegular():
		return nil, errors.New("is no regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("has more than %d KiB", limit>>10)
	}
	return b, err
}
