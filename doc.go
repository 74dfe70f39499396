// Package chicory runs Go functions elsewhere: in this process, from a file,
// or on workers behind Redis or RabbitMQ, by configuration only.
//
// A task is a function with a typed argument and a typed result:
//
//	app, err := chicory.New(chicory.Config{URL: "memory:"})
//	add := chicory.Register(app, "tasks.add", func(ctx context.Context, in AddArgs) (int, error) {
//		return in.X + in.Y, nil
//	})
//	err = app.Connect(ctx)
//	res, err := add.Delay(ctx, AddArgs{10, 32}) // enqueued
//	sum, err := res.Get(ctx)                    // 42, pushed back
//
// A worker (package worker) runs what was enqueued. Drivers live in packages
// of their own, which register themselves when imported:
//
//	import _ "github.com/chicory-go/chicory/drivers/memory"
//
// # Declaring tasks apart
//
// [Define] declares a task without app and handler, so that a web server and
// its workers share one package of definitions: the producer binds it with
// [Definition.On], the worker with [Definition.Handle]. [Register] is all in
// one.
//
// # Delivery
//
// By default a task runs at least once: it is settled after its verdict was
// recorded, and a worker that dies loses nothing. [AtMostOnce] never runs what
// may have started before. Failed attempts are retried with backoff; what
// failed for good is kept among the [DeadLetters], with its reason.
//
// # Results
//
// [AsyncResult.Get] waits for the end of the task and is notified, not
// polling. Its context bounds the wait and never cancels the task. What the
// handler returned as an error arrives as a [*TaskError].
//
// # Checking values
//
// An argument with a method Validate() error is asked where it is sent and again
// before its handler; [Validation] asks results too, or less. Package validate
// checks struct tags. What is refused is a [*ValidationError], or ends as a dead
// letter without a retry.
//
// # Configuration
//
// What [Config] leaves open is taken from the environment: CHICORY_URL,
// CHICORY_TIMEOUT and so on. Package config reads a file too, and the options of
// workers.
//
// # Watching
//
// [Middleware] wraps what is sent, worker.Middleware what is run. Packages
// metrics (Prometheus), tracing (OpenTelemetry) and health (probes over HTTP) are
// built on them.
//
// Everything here is safe for concurrent use unless it says otherwise.
package chicory
