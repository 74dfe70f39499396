package chicory_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

// quiet is a configuration for the examples: in memory, without a log.
var quiet = chicory.Config{URL: "memory:", Logger: slog.New(slog.DiscardHandler)}

// work starts a worker; the examples stop it when they end.
func work(app *chicory.App) (stop func() error) {
	return chicory.Must(worker.New(app, worker.Options{}).Start(context.Background()))
}

func ExampleDefine() {
	// Shared by producer and worker: no handler, no app.
	resize := chicory.Define[int, string]("images.resize", chicory.Queue("images"), chicory.MaxRetries(5))

	ctx, app := context.Background(), chicory.Must(chicory.New(quiet))
	defer app.Close()
	resize.Handle(app, func(_ context.Context, width int) (string, error) { // the worker
		return fmt.Sprintf("%d pixels wide", width), nil
	})
	defer work(app)()
	res := chicory.Must(resize.On(app).Delay(ctx, 640)) // the producer
	fmt.Println(chicory.Must(res.Get(ctx)))
	// Output: 640 pixels wide
}

// An order checks itself.
type order struct{ Count int }

func (o order) Validate() error {
	if o.Count < 1 {
		return fmt.Errorf("count is %d, want at least 1", o.Count)
	}
	return nil
}

func ExampleValidation() {
	ctx, app := context.Background(), chicory.Must(chicory.New(quiet))
	defer app.Close()
	buy := chicory.Register(app, "buy", func(_ context.Context, o order) (order, error) {
		return order{o.Count - 1}, nil
	}, chicory.Validation(chicory.ValidationStrict)) // arguments, results and unknown fields
	defer work(app)()
	_, err := buy.Delay(ctx, order{0}) // nothing is enqueued
	fmt.Println(err)
	_, err = chicory.Must(buy.Delay(ctx, order{1})).Get(ctx) // the result is refused
	var failed *chicory.TaskError
	fmt.Println(errors.As(err, &failed), failed.Reason, failed.Attempt, errors.Is(err, chicory.ErrValidation))
	// Output:
	// chicory: argument of buy refused: count is 0, want at least 1
	// true validation 1 true
}

func ExampleRetryAfter() {
	ctx, app := context.Background(), chicory.Must(chicory.New(quiet))
	defer app.Close()
	fetch := chicory.Register(app, "fetch", func(ctx context.Context, page string) (string, error) {
		info, _ := chicory.TaskFrom(ctx)
		switch {
		case page == "gone":
			return "", chicory.Permanent(errors.New("404")) // do not retry
		case info.Attempt == 1:
			return "", chicory.RetryAfter(5*time.Millisecond, errors.New("429")) // as the server said
		}
		return fmt.Sprintf("%s, at attempt %d", page, info.Attempt), nil
	})
	defer work(app)()
	for _, page := range []string{"news", "gone"} {
		v, err := chicory.Must(fetch.Delay(ctx, page)).Get(ctx)
		fmt.Println(v, errors.Is(err, chicory.ErrFailed))
	}
	// Output:
	// news, at attempt 2 false
	//  true
}

func ExampleSnooze() {
	ctx, app := context.Background(), chicory.Must(chicory.New(quiet))
	defer app.Close()
	asked := 0
	poll := chicory.Register(app, "poll", func(ctx context.Context, _ chicory.None) (string, error) {
		if asked++; asked < 3 {
			return "", chicory.Snooze(time.Millisecond) // not ready yet: no attempt is spent
		}
		info, _ := chicory.TaskFrom(ctx)
		return fmt.Sprintf("asked %d times, attempt %d", asked, info.Attempt), nil
	})
	defer work(app)()
	fmt.Println(chicory.Must(chicory.Must(poll.Delay(ctx, chicory.None{})).Get(ctx)))
	// Output: asked 3 times, attempt 1
}

func ExampleApp_Cancel() {
	ctx, app := context.Background(), chicory.Must(chicory.New(quiet))
	defer app.Close()
	mail := chicory.Register(app, "mail", add)
	defer work(app)()
	res := chicory.Must(mail.Delay(ctx, addArgs{}, chicory.After(time.Hour)))
	fmt.Println(app.Cancel(ctx, res.ID()))
	_, err := res.Get(ctx)
	fmt.Println(errors.Is(err, chicory.ErrCancelled))
	// Output:
	// <nil>
	// true
}

func ExampleDeadLetters_Replay() {
	ctx, app := context.Background(), chicory.Must(chicory.New(quiet))
	defer app.Close()
	broken := true
	pay := chicory.Register(app, "pay", func(context.Context, int) (string, error) {
		if broken {
			return "", errors.New("bank is closed")
		}
		return "paid", nil
	}, chicory.MaxRetries(1), chicory.Fixed(time.Millisecond))
	defer work(app)()
	res := chicory.Must(pay.Delay(ctx, 100))
	res.Get(ctx) // fails for good
	dead := app.DeadLetters("default")
	for d, err := range dead.All(ctx) {
		fmt.Println(d.Name, "failed after", d.Attempts, "attempts:", d.Message, err)
	}
	broken = false
	fmt.Println(dead.Replay(ctx, res.ID()))
	fmt.Println(res.Get(ctx)) // waits for the new run
	// Output:
	// pay failed after 2 attempts: bank is closed <nil>
	// 1 <nil>
	// paid <nil>
}

func ExampleMiddleware() {
	trace := func(next chicory.Dispatch) chicory.Dispatch {
		return func(ctx context.Context, out *chicory.Outgoing) error {
			out.Headers["trace"] = "abc"
			err := next(ctx, out) // encodes and publishes
			fmt.Println("sent", out.Name, err)
			return err
		}
	}
	resume := func(next worker.Handler) worker.Handler {
		return func(ctx context.Context) error {
			info, _ := chicory.TaskFrom(ctx)
			err := next(ctx)
			fmt.Println("ran", info.Name, "in trace", info.Headers["trace"], err)
			return err
		}
	}
	cfg := quiet
	cfg.Middleware = []chicory.Middleware{trace}
	ctx, app := context.Background(), chicory.Must(chicory.New(cfg))
	defer app.Close()
	task := chicory.Register(app, "tasks.add", add)
	if err := app.Connect(ctx); err != nil {
		fmt.Println(err)
	}
	res := chicory.Must(task.Delay(ctx, addArgs{1, 2}))
	stop := chicory.Must(worker.New(app, worker.Options{Middleware: []worker.Middleware{resume}}).Start(ctx))
	defer stop()
	fmt.Println(res.Get(ctx))
	// Output:
	// sent tasks.add <nil>
	// ran tasks.add in trace abc <nil>
	// 3 <nil>
}

func ExampleCompleted() {
	ctx, app := context.Background(), chicory.Must(chicory.New(quiet))
	defer app.Close()
	task := chicory.Register(app, "tasks.add", add)
	defer work(app)()
	rs := chicory.Must(task.DelayMany(ctx, []addArgs{{1, 1}, {2, 2}, {3, 3}}))
	sum := 0
	for _, o := range chicory.Completed(ctx, rs) { // as they finish
		sum += o.Value
	}
	fmt.Println(sum)
	fmt.Println(chicory.GetAll(ctx, rs)) // in order
	// Output:
	// 12
	// [2 4 6] <nil>
}

func ExampleAllowWait() {
	ctx, app := context.Background(), chicory.Must(chicory.New(quiet))
	defer app.Close()
	inner := chicory.Register(app, "inner", add, chicory.Queue("inner"))
	outer := chicory.Register(app, "outer", func(ctx context.Context, in addArgs) (int, error) {
		res, err := inner.Delay(ctx, in)
		if err != nil {
			return 0, err
		}
		return res.Get(chicory.AllowWait(ctx)) // another worker has slots for it
	}, chicory.Queue("outer"))
	for _, q := range []string{"inner", "outer"} {
		stop := chicory.Must(worker.New(app, worker.Options{Queues: []worker.Queue{{Name: q}}}).Start(ctx))
		defer stop()
	}
	fmt.Println(chicory.Must(outer.Delay(ctx, addArgs{20, 22})).Get(ctx))
	// Output: 42 <nil>
}

func ExampleNewWith() {
	store := memory.New() // or your own client, or your own driver
	ctx, app := context.Background(), chicory.Must(chicory.NewWith(store.Broker("shop"), store.Backend("shop"), quiet))
	defer app.Close()
	task := chicory.Register(app, "tasks.add", add, chicory.AtMostOnce(), chicory.ResultTTL(time.Minute))
	defer work(app)()
	fmt.Println(chicory.Must(task.Delay(ctx, addArgs{1, 2}, chicory.Priority(9), chicory.ExpiresIn(time.Minute))).Get(ctx))
	// Output: 3 <nil>
}
