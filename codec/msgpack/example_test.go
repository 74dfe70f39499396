package msgpack_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/codec/msgpack"
	_ "github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

func Example() {
	type event struct {
		Name string `json:"name"`
		Data []byte `json:"data"`
	}
	ctx := context.Background()
	app := chicory.Must(chicory.New(chicory.Config{URL: "memory:", Codec: msgpack.Codec, Logger: slog.New(slog.DiscardHandler)}))
	defer app.Close()
	count := chicory.Register(app, "count", func(_ context.Context, e event) (int, error) { return len(e.Data), nil })
	stop := chicory.Must(worker.New(app, worker.Options{}).Start(ctx))
	defer stop()
	fmt.Println(chicory.Must(count.Delay(ctx, event{"upload", []byte{1, 2, 3}})).Get(ctx))
	// Output: 3 <nil>
}
