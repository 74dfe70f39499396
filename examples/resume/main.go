// Command resume sends jobs, or works them off. A worker that is killed in the
// middle of a job leaves it to the next one; docs/bolt.md shows it.
//
//	resume send NAME...   one job for each name
//	resume work [NAME]    gets stuck at the job of that name
//
// The store is the file jobs.db; CHICORY_URL chooses another.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/all"
	"github.com/chicory-go/chicory/worker"
)

var job = chicory.Define[string, string]("resume.job")

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	app := chicory.Must(chicory.New(chicory.Config{URL: cmp.Or(os.Getenv("CHICORY_URL"), "bolt:jobs.db")}))
	defer app.Close()
	if err := run(ctx, app, append(os.Args[1:], "", "")); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, app *chicory.App, args []string) error {
	if err := app.Connect(ctx); err != nil {
		return err
	}
	jobs, stuck := job.On(app), args[1]
	if args[0] == "send" {
		for _, name := range args[1 : len(args)-2] {
			chicory.Must(jobs.Send(ctx, name, chicory.ID(name)))
		}
		return nil
	}
	job.Handle(app, func(_ context.Context, name string) (string, error) {
		fmt.Println(name, "begins")
		if name == stuck {
			select {}
		}
		go func() {
			fmt.Println(chicory.Must(jobs.Result(name).Get(ctx)), "is done") // its result is on the disk
		}()
		return name, nil
	})
	return worker.New(app, worker.Options{Concurrency: 1}).Run(ctx)
}
