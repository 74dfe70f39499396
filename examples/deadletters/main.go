// Command deadletters ships orders, finds those that failed for good and ships
// them again; docs/dead-letters.md and docs/workers.md show it.
//
//	deadletters send ID...     one order for each id
//	deadletters work [flags]   ships them, if there is a file "warehouse"
//	deadletters status ID      what became of one
//	deadletters list           the dead letters
//	deadletters replay ID...   has them shipped again
//
// The store is the file orders.db; CHICORY_URL chooses another.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/all"
	"github.com/chicory-go/chicory/worker"
)

const queue = "orders"

var ship = chicory.Define[string, string]("orders.ship", chicory.Queue(queue),
	chicory.MaxRetries(1), chicory.Fixed(10*time.Millisecond))

var errClosed = errors.New("warehouse is closed")

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn)
	app := chicory.Must(chicory.New(chicory.Config{URL: cmp.Or(os.Getenv("CHICORY_URL"), "bolt:orders.db")}))
	command, ids := "", []string(nil)
	if len(os.Args) > 1 {
		command, ids = os.Args[1], os.Args[2:]
	}
	if command == "work" {
		ship.Handle(app, handle)
		os.Args = append(os.Args[:1], os.Args[2:]...) // the rest is the worker's
		worker.Main(app)
	}
	defer app.Close()
	if err := run(context.Background(), app, command, ids); err != nil {
		log.Fatal(err)
	}
}

func handle(ctx context.Context, _ string) (string, error) {
	info, _ := chicory.TaskFrom(ctx)
	what, err := "shipped", error(nil)
	if _, missing := os.Stat("warehouse"); missing != nil {
		what, err = errClosed.Error(), errClosed
	}
	fmt.Printf("%s, attempt %d of %d: %s\n", info.ID, info.Attempt, info.MaxAttempts, what)
	return what, err
}

func run(ctx context.Context, app *chicory.App, command string, ids []string) error {
	if err := app.Connect(ctx); err != nil {
		return err
	}
	orders, dead := ship.On(app), app.DeadLetters(queue)
	switch command {
	case "send":
		for _, id := range ids {
			if _, err := orders.Send(ctx, id, chicory.ID(id)); err != nil {
				return err
			}
		}
	case "status":
		for _, id := range ids {
			info, err := orders.Result(id).Info(ctx)
			if err != nil {
				return err
			}
			fmt.Println(id, "is", info.State)
		}
	case "list":
		for letter, err := range dead.All(ctx) {
			if err != nil {
				return err
			}
			fmt.Printf("%s: %s %s after %d attempts: %s\n", letter.ID, letter.Name, letter.Reason, letter.Attempts, letter.Message)
		}
	case "replay":
		n, err := dead.Replay(ctx, ids...)
		fmt.Println("replayed", n)
		return err
	default:
		return fmt.Errorf("unknown command %q", command)
	}
	return nil
}
