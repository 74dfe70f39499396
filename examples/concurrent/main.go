// Command concurrent runs many tasks at once and gathers their results, in
// order and as they come.
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
	add := chicory.Register(app, "tasks.add", func(_ context.Context, in AddArgs) (int, error) {
		time.Sleep(20 * time.Millisecond) // work
		return in.X + in.Y, nil
	})
	if err := app.Connect(ctx); err != nil {
		return err
	}
	// Five handlers at once; the default is one per core.
	stop, err := worker.New(app, worker.Options{Concurrency: 5}).Start(ctx)
	if err != nil {
		return err
	}
	defer stop()

	var args []AddArgs
	for i := 1; i <= 5; i++ {
		args = append(args, AddArgs{i, i * 2})
	}
	tasks, err := add.DelayMany(ctx, args)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Dispatched %d tasks\n", len(tasks))

	results, err := chicory.GetAll(ctx, tasks)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Results: %v\n", results)

	sum := 0
	for i, outcome := range chicory.Completed(ctx, tasks) {
		if outcome.Err != nil {
			return fmt.Errorf("task %d: %w", i, outcome.Err)
		}
		sum += outcome.Value
	}
	fmt.Fprintf(out, "Sum as they came: %d\n", sum)
	return nil
}
