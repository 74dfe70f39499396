// Command complete puts it together: a package of definitions, handlers with
// their dependencies, a producer, retries, and a failed task that is found,
// understood and run again.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

// What producers and workers share: types and definitions. In a larger program
// they are a package of their own.
type (
	AddArgs struct{ X, Y int }
	Data    struct {
		UserID int      `json:"user_id"`
		Items  []string `json:"items"`
	}
	Processed struct {
		Original    Data      `json:"original"`
		ProcessedAt time.Time `json:"processed_at"`
		ItemCount   int       `json:"item_count"`
	}
)

var (
	taskAdd     = chicory.Define[AddArgs, int]("tasks.add")
	taskProcess = chicory.Define[Data, Processed]("tasks.process_data", chicory.Queue("data"),
		chicory.MaxRetries(1), chicory.Fixed(5*time.Millisecond))
)

// handlers holds what handlers need: a database, clients, settings.
type handlers struct{ serviceUp atomic.Bool }

func (h *handlers) add(_ context.Context, in AddArgs) (int, error) { return in.X + in.Y, nil }

func (h *handlers) process(ctx context.Context, in Data) (Processed, error) {
	if !h.serviceUp.Load() {
		info, _ := chicory.TaskFrom(ctx)
		return Processed{}, fmt.Errorf("service is down (attempt %d of %d)", info.Attempt, info.MaxAttempts)
	}
	return Processed{Original: in, ProcessedAt: time.Now().UTC(), ItemCount: len(in.Items)}, nil
}

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
	h := &handlers{}
	taskAdd.Handle(app, h.add)
	taskProcess.Handle(app, h.process)
	if err := app.Connect(ctx); err != nil {
		return err
	}
	stop, err := worker.New(app, worker.Options{}).Start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	if err := simple(ctx, out, app); err != nil {
		return err
	}
	return replayed(ctx, out, app, h)
}

func simple(ctx context.Context, out io.Writer, app *chicory.App) error {
	add := taskAdd.On(app)
	result, err := add.Delay(ctx, AddArgs{10, 32})
	if err != nil {
		return err
	}
	sum, err := result.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "10 + 32 = %d\n", sum)
	batch, err := add.DelayMany(ctx, []AddArgs{{1, 2}, {2, 4}, {3, 6}, {4, 8}, {5, 10}})
	if err != nil {
		return err
	}
	sums, err := chicory.GetAll(ctx, batch)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Batch results: %v\n", sums)
	return nil
}

func replayed(ctx context.Context, out io.Writer, app *chicory.App, h *handlers) error {
	result, err := taskProcess.On(app).Delay(ctx, Data{UserID: 42, Items: []string{"book", "pen"}})
	if err != nil {
		return err
	}
	if _, err := result.Get(ctx); !errors.Is(err, chicory.ErrDeadLettered) {
		return fmt.Errorf("want a dead letter, got %w", err)
	}
	dead := app.DeadLetters("data")
	for letter, err := range dead.All(ctx) {
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "Dead letter: %s, %s: %s\n", letter.Name, letter.Reason, letter.Message)
	}
	h.serviceUp.Store(true) // mended
	n, err := dead.Replay(ctx, result.ID())
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Replayed %d\n", n)
	processed, err := result.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Processed %d items of user %d\n", processed.ItemCount, processed.Original.UserID)
	return nil
}
