// Command timeouts shows the two kinds: the caller's patience, which does not
// touch the task, and the task's own time, which cancels its handler.
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
	long := chicory.Register(app, "tasks.long", func(ctx context.Context, d time.Duration) (string, error) {
		select {
		case <-time.After(d):
			return fmt.Sprintf("slept %v", d), nil
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}, chicory.MaxRetries(0))
	if err := app.Connect(ctx); err != nil {
		return err
	}
	stop, err := worker.New(app, worker.Options{}).Start(ctx)
	if err != nil {
		return err
	}
	defer stop()

	result, err := long.Delay(ctx, 700*time.Millisecond)
	if err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := result.Get(short); errors.Is(err, context.DeadlineExceeded) {
		fmt.Fprintln(out, "Gave up waiting; the task runs on")
	}
	value, err := result.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "Task completed:", value)

	// The task's own time: its handler's context ends, and the attempt fails.
	limited, err := long.Delay(ctx, time.Hour, chicory.Timeout(20*time.Millisecond))
	if err != nil {
		return err
	}
	_, err = limited.Get(ctx)
	var failed *chicory.TaskError
	if errors.As(err, &failed) {
		fmt.Fprintln(out, "Timed out:", failed.Kind)
	}
	return nil
}
