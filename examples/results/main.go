// Command results looks at a task while it runs, when it succeeds, and when it
// fails for good.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

var errNoStock = errors.New("no stock")

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	app, err := chicory.New(chicory.Config{URL: "memory:"})
	if err != nil {
		return err
	}
	defer app.Close()
	begun, goOn := make(chan bool), make(chan bool)
	pack := chicory.Register(app, "shop.pack", func(_ context.Context, item string) (string, error) {
		begun <- true
		<-goOn
		return "packed " + item, nil
	})
	reserve := chicory.Register(app, "shop.reserve", func(context.Context, string) (int, error) {
		return 0, errNoStock
	}, chicory.MaxRetries(1), chicory.Fixed(10*time.Millisecond))
	if err := app.Connect(ctx); err != nil {
		return err
	}

	// Nobody works yet.
	result, err := pack.Delay(ctx, "a book")
	if err != nil {
		return err
	}
	if err := show(ctx, out, "Enqueued", result); err != nil {
		return err
	}

	stop, err := worker.New(app, worker.Options{}).Start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	<-begun
	if err := show(ctx, out, "Running", result); err != nil {
		return err
	}
	goOn <- true
	value, err := result.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "Result:", value)
	if err := show(ctx, out, "Done", result); err != nil {
		return err
	}

	failing, err := reserve.Delay(ctx, "a pen")
	if err != nil {
		return err
	}
	_, err = failing.Get(ctx)
	var failed *chicory.TaskError
	if errors.As(err, &failed) {
		fmt.Fprintf(out, "Failed for good: %s, %d attempts, dead-lettered: %v\n",
			failed.Message, len(failed.History), errors.Is(err, chicory.ErrDeadLettered))
	}
	if err := show(ctx, out, "Failed", failing); err != nil {
		return err
	}

	// An id that nobody knows is an error, never PENDING.
	_, err = pack.Result("no-such-task").State(ctx)
	fmt.Fprintln(out, "Unknown:", errors.Is(err, chicory.ErrNotFound))
	return nil
}

func show[T any](ctx context.Context, out io.Writer, when string, r *chicory.AsyncResult[T]) error {
	state, err := r.State(ctx)
	if err != nil {
		return err
	}
	ready, err := r.Ready(ctx)
	if err != nil {
		return err
	}
	failed, err := r.Failed(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: state %s, ready %v, failed %v\n", when, state, ready, failed)
	return nil
}
