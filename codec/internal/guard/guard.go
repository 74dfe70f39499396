// Package guard turns panics of encodings into errors: bytes that come from a
// store must not end a process.
package guard

import "fmt"

// Call calls f and returns its error, or its panic as one that starts with
// what.
func Call(what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: panic: %v", what, p)
		}
	}()
	return f()
}
