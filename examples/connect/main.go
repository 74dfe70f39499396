// Command connect shows the life of an app: nothing touches the network before
// Connect, and nothing works without it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/memory"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	// Broker and backend are chosen by type, or both at once by a URL. New
	// checks the configuration and does no I/O.
	app, err := chicory.New(chicory.Config{
		Broker:  chicory.BrokerMemory,
		Backend: chicory.BackendMemory,
	})
	if err != nil {
		return err
	}
	// Close ends the app for good, whatever happens below.
	defer app.Close()

	greet := chicory.Define[string, string]("tasks.greet").On(app)
	if _, err := greet.Send(ctx, "Ada"); errors.Is(err, chicory.ErrNotConnected) {
		fmt.Fprintln(out, "Before Connect:", err)
	}

	if err := app.Connect(ctx); err != nil {
		return err
	}
	if _, err := greet.Send(ctx, "Ada"); err != nil {
		return err
	}
	fmt.Fprintln(out, "Connected: sent")

	// Disconnect lets go of the stores; Connect may follow again.
	if err := app.Disconnect(ctx); err != nil {
		return err
	}
	_, err = greet.Send(ctx, "Ada")
	fmt.Fprintln(out, "Disconnected:", errors.Is(err, chicory.ErrNotConnected))

	_, err = chicory.New(chicory.Config{Broker: "carrier-pigeon"})
	fmt.Fprintln(out, "Unknown broker:", err)
	return nil
}
