// Command send dispatches tasks without waiting for them: fire and forget.
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

// Mail is the argument of mail.send.
type Mail struct{ To, Subject string }

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
	sent := make(chan string)

	// NoResult makes a task of a function that returns only an error.
	// IgnoreResult keeps no record of it at all: the fastest way there is.
	deliver := chicory.Register(app, "mail.send", chicory.NoResult(func(_ context.Context, m Mail) error {
		sent <- m.To
		return nil
	}), chicory.IgnoreResult())
	// Without it, a result that nobody waits for is still stored.
	multiply := chicory.Register(app, "tasks.multiply", func(_ context.Context, in [2]int) (int, error) {
		return in[0] * in[1], nil
	})

	if err := app.Connect(ctx); err != nil {
		return err
	}
	stop, err := worker.New(app, worker.Options{}).Start(ctx)
	if err != nil {
		return err
	}
	defer stop()

	if _, err := deliver.Send(ctx, Mail{To: "ada@example.org", Subject: "Hello"}); err != nil {
		return err
	}
	fmt.Fprintln(out, "Delivered to", <-sent)

	id, err := multiply.Send(ctx, [2]int{5, 8})
	if err != nil {
		return err
	}
	// The id is all it takes to ask later, from any process.
	product, err := multiply.Result(id).Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "5 * 8 = %d\n", product)
	return nil
}
