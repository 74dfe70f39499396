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
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/all"
	"github.com/chicory-go/chicory/worker"
)

var job = chicory.Define[string, string]("resume.job")

var errUsage = errors.New("usage: resume send NAME...\n       resume work [NAME]")

func main() {
	slog.SetLogLoggerLevel(slog.LevelWarn)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if errors.Is(err, errUsage) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string) error {
	sends := len(args) > 1 && args[0] == "send"
	works := len(args) > 0 && len(args) < 3 && args[0] == "work"
	if !sends && !works {
		return errUsage // before the file is opened, which would make it
	}
	app, err := chicory.New(chicory.Config{URL: cmp.Or(os.Getenv("CHICORY_URL"), "bolt:jobs.db")})
	if err != nil {
		return err
	}
	defer app.Close()
	if err := app.Connect(ctx); err != nil {
		return err
	}
	if sends {
		return send(ctx, app, args[1:])
	}
	return work(ctx, app, strings.Join(args[1:], ""))
}

func send(ctx context.Context, app *chicory.App, names []string) error {
	for _, name := range names {
		if _, err := job.On(app).Send(ctx, name, chicory.ID(name)); err != nil {
			return err
		}
	}
	return nil
}

// work runs jobs. It gets stuck at the one of that name.
func work(ctx context.Context, app *chicory.App, stuck string) error {
	jobs := job.On(app)
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
