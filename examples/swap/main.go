// Command swap runs on whatever stores it is configured for: in memory, on a file, on
// Redis, on RabbitMQ with a backend. Nothing here names one.
//
//	CHICORY_URL=memory: go run ./examples/swap
//	CHICORY_URL=bolt:jobs.db go run ./examples/swap
//	CHICORY_URL=redis://localhost:6379 go run ./examples/swap
//	CHICORY_URL=amqp://localhost CHICORY_BACKEND_URL=redis://localhost:6379 go run ./examples/swap
//	CHICORY_CONFIG=examples/swap/chicory.toml go run ./examples/swap
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
	"github.com/chicory-go/chicory/config"
	_ "github.com/chicory-go/chicory/drivers/all"
	"github.com/chicory-go/chicory/worker"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

// square fails once for each number, as things do.
func square(ctx context.Context, n int) (int, error) {
	if info, _ := chicory.TaskFrom(ctx); info.Attempt == 1 {
		return 0, errors.New("not today")
	}
	return n * n, nil
}

func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	// Environment and file say which stores, and whatever else is to be said.
	cfg, err := config.Load("")
	if err != nil {
		return err
	}
	app, err := chicory.New(cfg.App)
	if err != nil {
		return err
	}
	defer app.Close()
	task := chicory.Register(app, "swap.square", square, chicory.Fixed(100*time.Millisecond))

	stop, err := worker.New(app, cfg.Worker).Start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := app.Connect(ctx); err != nil {
		return err
	}

	now, err := task.DelayMany(ctx, []int{1, 2, 3, 4})
	if err != nil {
		return err
	}
	squares, err := chicory.GetAll(ctx, now)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "At once, each at its second attempt:", squares)

	later, err := task.Delay(ctx, 12, chicory.After(200*time.Millisecond))
	if err != nil {
		return err
	}
	n, err := later.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "A moment later:", n)
	return nil
}
