// Command delay dispatches tasks whose results are wanted, now and later.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

// AddArgs is the argument of tasks.add.
type AddArgs struct{ X, Y int }

func add(_ context.Context, in AddArgs) (int, error) { return in.X + in.Y, nil }

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
	task := chicory.Register(app, "tasks.add", add)
	if err := app.Connect(ctx); err != nil {
		return err
	}
	stop, err := worker.New(app, worker.Options{}).Start(ctx)
	if err != nil {
		return err
	}
	defer stop()

	// Delay returns as soon as the broker has stored the task.
	result, err := task.Delay(ctx, AddArgs{10, 32})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Task ID has %d characters\n", len(result.ID()))

	// Get waits for the result. The context bounds the wait, not the task.
	wait, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answer, err := result.Get(wait)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Result: %d\n", answer)

	// Options apply to one call: here a start in the future, on the store's
	// clock, and more retries than the task's own.
	begin := time.Now()
	later, err := task.Delay(ctx, AddArgs{1, 1}, chicory.After(100*time.Millisecond), chicory.MaxRetries(10))
	if err != nil {
		return err
	}
	if answer, err = later.Get(ctx); err != nil {
		return err
	}
	fmt.Fprintf(out, "Later: %d, early: %v\n", answer, time.Since(begin) < 100*time.Millisecond)
	return nil
}
