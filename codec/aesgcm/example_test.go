package aesgcm_test

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/codec/aesgcm"
)

// The new key is accepted everywhere before anybody encodes with it.
func ExampleNew_rotation() {
	old := aesgcm.Key{ID: "2026-10", Secret: make([]byte, 32)} // of a secret store, random
	fresh := aesgcm.Key{ID: "2026-11", Secret: bytes.Repeat([]byte{1}, 32)}
	before, _ := aesgcm.New(codec.JSON, old)
	during, _ := aesgcm.New(codec.JSON, fresh, old)

	b, err := before.Append(nil, "card 4711")
	fmt.Println(during.ContentType(), bytes.Contains(b, []byte("4711")), err)
	var text string
	fmt.Println(during.Decode(b, &text), text)

	b[len(b)-1] ^= 1
	fmt.Println(errors.Is(during.Decode(b, &text), aesgcm.ErrAuthentication))
	// Output:
	// application/json+aesgcm false <nil>
	// <nil> card 4711
	// true
}
