// Command quickstart sends tasks to a worker in its own process and prints
// what they return.
//
//	go run ./examples/quickstart
//
// It runs in memory; CHICORY_URL chooses another store.
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/all"
	"github.com/chicory-go/chicory/worker"
)

// AddArgs is the argument of tasks.add.
type AddArgs struct{ X, Y int }

// Order is the argument of shop.total, Receipt its result.
type (
	Order struct {
		Customer string
		Items    map[string]float64
	}
	Receipt struct {
		Customer string
		Count    int
		Total    float64
	}
)

func add(_ context.Context, in AddArgs) (int, error) { return in.X + in.Y, nil }

func total(_ context.Context, in Order) (Receipt, error) {
	r := Receipt{Customer: in.Customer, Count: len(in.Items)}
	for _, price := range in.Items {
		r.Total += price
	}
	return r, nil
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	app, err := chicory.New(chicory.Config{URL: cmp.Or(os.Getenv("CHICORY_URL"), "memory:")})
	if err != nil {
		return err
	}
	defer app.Close()
	addTask := chicory.Register(app, "tasks.add", add)
	totalTask := chicory.Register(app, "shop.total", total)

	if err := app.Connect(ctx); err != nil {
		return err
	}
	stop, err := worker.New(app, worker.Options{}).Start(ctx)
	if err != nil {
		return err
	}
	defer stop()

	// One task, and its typed result.
	sum, err := addTask.Delay(ctx, AddArgs{10, 32})
	if err != nil {
		return err
	}
	answer, err := sum.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "10 + 32 = %d\n", answer)

	// Many at once, results in order.
	batch, err := addTask.DelayMany(ctx, []AddArgs{{1, 2}, {2, 4}, {3, 6}, {4, 8}, {5, 10}})
	if err != nil {
		return err
	}
	sums, err := chicory.GetAll(ctx, batch)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Batch results: %v\n", sums)

	// Any Go value that its codec, JSON, can carry.
	order, err := totalTask.Delay(ctx, Order{"Ada", map[string]float64{"book": 12.5, "pen": 1.5}})
	if err != nil {
		return err
	}
	receipt, err := order.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s bought %d items for %.2f\n", receipt.Customer, receipt.Count, receipt.Total)
	return nil
}
