package zstd_test

import (
	"fmt"
	"strings"

	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/codec/zstd"
)

func ExampleNew() {
	c, err := zstd.New(codec.JSON, zstd.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	b, err := c.Append(nil, strings.Repeat("chicory ", 1000)) // chicory.Config.Codec calls it
	fmt.Println(c.ContentType(), len(b) < 100, err)
	var text string
	fmt.Println(c.Decode(b, &text), len(text))
	// Output:
	// application/json+zstd true <nil>
	// <nil> 8000
}
