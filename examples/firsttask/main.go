// Command firsttask is the shortest whole program: a task, a worker, a result.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

// A task takes one argument and returns one result; both are types of yours.
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

	// The name identifies the task on the wire: it must be unique in the app,
	// and stay what it is while tasks are under way.
	task := chicory.Register(app, "tasks.add", add)
	fmt.Fprintf(out, "Registered %s\n", task.Name())

	// A worker that runs in this process connects the app and takes tasks.
	if err := app.Connect(ctx); err != nil {
		return err
	}
	stop, err := worker.New(app, worker.Options{}).Start(ctx)
	if err != nil {
		return err
	}
	defer stop()

	res, err := task.Delay(ctx, AddArgs{X: 2, Y: 3})
	if err != nil {
		return err
	}
	sum, err := res.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "2 + 3 = %d\n", sum)
	return nil
}
