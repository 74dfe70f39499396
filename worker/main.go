package worker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/internal/settings"
)

// Exit codes of Main.
const (
	exitOK      = 0
	exitFailure = 1 // the worker could not start, or its broker was closed
	exitUsage   = 2 // bad flags, environment or file
)

// Main runs a worker of app as a program and does not return: it reads flags,
// logs as text to standard error at the level they say,
// stops gracefully at SIGINT or SIGTERM and at once at the second signal, and
// exits with 0 after a stop, 1 if the worker failed, 2 for bad usage. Flags
// beat CHICORY_* environment variables, which beat the file CHICORY_CONFIG
// names, which beats the defaults; --help lists them.
func Main(app *chicory.App) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(runMain(app, os.Args[0], os.Args[1:], os.Stderr, signals, os.Exit))
}

func runMain(app *chicory.App, program string, args []string, stderr io.Writer, signals <-chan os.Signal, exit func(int)) int {
	f, err := parseFlags(program, args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "%v\nRun %s --help for usage.\n", err, program)
		return exitUsage
	}
	opts := f.opts
	opts.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: f.level}))
	if f.url != "" {
		if err := app.Core().Override(f.url); err != nil {
			fmt.Fprintln(stderr, err)
			return exitUsage
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan struct{})
	defer close(ended)
	go obey(signals, ended, stop, opts.Logger, exit)
	w := New(app, opts)
	if w.err != nil {
		fmt.Fprintln(stderr, w.err)
		return exitUsage
	}
	if err := w.Run(ctx); err != nil {
		fmt.Fprintln(stderr, err)
		return exitFailure
	}
	return exitOK
}

// obey stops the worker at the first signal and the process at the second.
func obey(signals <-chan os.Signal, ended <-chan struct{}, stop func(), log *slog.Logger, exit func(int)) {
	select {
	case sig := <-signals:
		log.Info("chicory: stopping; a second signal exits at once", "signal", sig.String())
		stop()
	case <-ended:
		return
	}
	select {
	case sig := <-signals:
		log.Warn("chicory: exit at once; leases bring unfinished tasks back", "signal", sig.String())
		exit(exitFailure)
	case <-ended:
	}
}

// flags are what the command line, the environment and the file say.
type flags struct {
	opts  Options
	url   string
	level slog.Level
	set   map[string]bool // given on the command line
}

func parseFlags(program string, args []string, stderr io.Writer) (*flags, error) {
	f := &flags{}
	fs := flag.NewFlagSet(program, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.IntVar(&f.opts.Concurrency, "concurrency", 0, "")
	fs.DurationVar(&f.opts.ShutdownTimeout, "shutdown-timeout", 0, "")
	fs.StringVar(&f.url, "url", "", "")
	fs.BoolVar(&f.opts.Strict, "strict", false, "")
	queues := fs.String("queues", "", "")
	level := fs.String("log-level", "", "")
	dlq := fs.Bool("dlq", false, "")
	noDLQ := fs.Bool("no-dlq", false, "")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			usage(program, stderr)
		}
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	set := map[string]bool{}
	fs.Visit(func(fl *flag.Flag) { set[fl.Name] = true })
	if *dlq && *noDLQ {
		return nil, errors.New("--dlq and --no-dlq exclude each other")
	}
	f.set = set
	switch {
	case set["dlq"]:
		f.opts.deadLetters = dlq
	case set["no-dlq"]:
		*dlq = !*noDLQ
		f.opts.deadLetters = dlq
	}
	return f, f.resolve(*queues, *level)
}

// resolve takes what no flag says from the environment and the file.
func (f *flags) resolve(queues, level string) error {
	env, err := settings.Load()
	if err != nil {
		return err
	}
	env.String("queues", &queues)
	env.String("log_level", &level)
	var errs []error
	// from takes key from the environment or the file, unless its flag is set,
	// and returns who says it, if anybody does.
	from := func(key string, take func(key string) error) string {
		name := strings.ReplaceAll(key, "_", "-")
		if f.set[name] {
			return "--" + name
		}
		if _, found := env.Lookup(key); !found {
			return ""
		}
		errs = append(errs, take(key))
		return settings.Prefix + strings.ToUpper(key)
	}
	if who := from("concurrency", func(k string) error { return env.Int(k, &f.opts.Concurrency) }); who != "" && f.opts.Concurrency < 1 {
		errs = append(errs, fmt.Errorf("%s: want more than 0", who))
	}
	who := from("shutdown_timeout", func(k string) error { return env.Duration(k, &f.opts.ShutdownTimeout) })
	switch d := &f.opts.ShutdownTimeout; {
	case who == "":
	case *d < 0:
		errs = append(errs, fmt.Errorf("%s: want 0 for no grace, or more", who))
	case *d == 0:
		*d = NoGrace
	}
	from("strict", func(k string) error { return env.Bool(k, &f.opts.Strict) })
	if f.opts.deadLetters == nil {
		from("dlq", func(k string) error {
			f.opts.deadLetters = new(bool)
			return env.Bool(k, f.opts.deadLetters)
		})
	}
	f.opts.Queues, err = parseQueues(queues)
	errs = append(errs, err)
	if level != "" {
		if err := f.level.UnmarshalText([]byte(level)); err != nil {
			errs = append(errs, fmt.Errorf("log level %q: want debug, info, warn or error", level))
		}
	}
	return errors.Join(errs...)
}

// parseQueues reads "images=3,mail": names with weights. The weight follows
// the last "=", so that names may hold one.
func parseQueues(s string) ([]Queue, error) {
	if s == "" {
		return nil, nil
	}
	var qs []Queue
	for part := range strings.SplitSeq(s, ",") {
		q := Queue{Name: strings.TrimSpace(part)}
		if i := strings.LastIndex(q.Name, "="); i >= 0 {
			weight, err := strconv.Atoi(q.Name[i+1:])
			if err != nil || weight < 1 {
				return nil, fmt.Errorf("queues: %q: want name or name=weight", part)
			}
			q.Name, q.Weight = q.Name[:i], weight
		}
		if q.Name == "" {
			return nil, fmt.Errorf("queues: %q holds an empty name", s)
		}
		qs = append(qs, q)
	}
	return qs, nil
}

func usage(program string, w io.Writer) {
	fmt.Fprintf(w, `Usage: %s [flags]

Runs tasks until SIGINT or SIGTERM, then stops gracefully; a second signal
exits at once.

Flags:
  --concurrency N         handlers that run at once (default: number of cores, here %d)
  --queues A=3,B          queues to serve, with weights (default: those of the registered tasks)
  --strict                serve a queue only while those before it are empty
  --dlq, --no-dlq         keep tasks that failed for good among the dead letters (default: --dlq)
  --shutdown-timeout D    grace for running handlers at a stop (default: %v)
  --url URL               store to use instead of the program's own, whatever it sets in code
  --log-level LEVEL       debug, info, warn or error (default: info)
  --help                  show this text

A flag beats its environment variable (CHICORY_CONCURRENCY, CHICORY_QUEUES,
CHICORY_STRICT, CHICORY_DLQ, CHICORY_SHUTDOWN_TIMEOUT, CHICORY_LOG_LEVEL),
which beats the key of that name (concurrency, queues, ...) in the JSON file
that CHICORY_CONFIG names. CHICORY_URL is for programs that set no URL in code.

Exit codes: 0 stopped, 1 failed, 2 bad usage.
`, program, runtime.NumCPU(), defaultGrace.Round(time.Second))
}
