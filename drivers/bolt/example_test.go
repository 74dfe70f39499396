package bolt_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/chicory-go/chicory/drivers/bolt"
)

// A program compacts its file before it opens it, if that has become large.
func ExampleCompact() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx, path := context.Background(), filepath.Join(dir, "jobs.db")

	if info, err := os.Stat(path); err == nil && info.Size() > 1<<30 {
		if err := bolt.Compact(ctx, path); err != nil {
			fmt.Println(err) // the file is as it was
		}
	}
	s, err := bolt.Open(ctx, path, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Close())
	// Output: <nil>
}
