package worker

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"strconv"
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
// beat CHICORY_* environment variables, which beat the defaults; --help lists
// them.
func Main(app *chicory.App) { MainWith(app, Options{}) }

// MainWith is Main for a worker with options, as config.Load returns them. Flags
// beat them; the environment gives what they leave open. CHICORY_DLQ and
// CHICORY_LOG_LEVEL beat NoDeadLetters and Logger.
func MainWith(app *chicory.App, opts Options) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(runMain(app, opts, os.Args[0], os.Args[1:], os.Stderr, signals, os.Exit))
}

func runMain(app *chicory.App, opts Options, program string, args []string, stderr io.Writer, signals <-chan os.Signal, exit func(int)) int {
	f, err := parseFlags(opts, program, args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "%v\nRun %s --help for usage.\n", err, program)
		return exitUsage
	}
	opts = f.opts
	if f.leveled || opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: f.level}))
	}
	if f.storeSaid {
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

// flags are what the command line, the program and the environment say.
type flags struct {
	opts      Options
	url       string
	storeSaid bool // there is a --url
	level     slog.Level
	leveled   bool // somebody says the level
}

func parseFlags(opts Options, program string, args []string, stderr io.Writer) (*flags, error) {
	given := settings.Values{}
	fs := flag.NewFlagSet(program, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	for i := range settings.Keys {
		k := &settings.Keys[i]
		take := func(text string) error {
			given[k.Name] = settings.Value{Texts: []string{text}, From: "--" + k.Flag()}
			return nil
		}
		switch {
		case k.HasFlag && k.IsSwitch():
			fs.BoolFunc(k.Flag(), "", take)
		case k.HasFlag:
			fs.Func(k.Flag(), "", take)
		}
	}
	var noDLQ *bool
	fs.BoolFunc("no-dlq", "", func(text string) error {
		no, err := strconv.ParseBool(text)
		noDLQ = &no
		return err
	})
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			usage(program, stderr)
		}
		if settings.MayBeURL(err.Error()) { // it repeats the argument
			err = errors.New("an argument that may be a URL is wrong; want --url and then the URL")
		}
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument: %s", settings.Shown(fs.Arg(0), "what may be a URL; want --url and then the URL"))
	}
	if noDLQ != nil {
		if _, both := given["dlq"]; both {
			return nil, errors.New("--dlq and --no-dlq exclude each other")
		}
		given["dlq"] = settings.Value{Texts: []string{strconv.FormatBool(!*noDLQ)}, From: "--no-dlq"}
	}
	return resolve(opts, given)
}

// resolve adds what flags and the environment say to opts.
func resolve(opts Options, given settings.Values) (*flags, error) {
	env, err := settings.Load()
	errs := []error{err}
	maps.DeleteFunc(env, func(name string, _ settings.Value) bool { _, ok := given[name]; return ok })
	f := &flags{opts: opts}
	errs = append(errs, env.Fill(&f.opts, false), given.Fill(&f.opts, true))
	f.storeSaid, err = given.Read("url", &f.url)
	errs = append(errs, err)
	maps.Copy(env, given)
	f.leveled, err = env.Read(settings.KeyLogLevel, &f.level)
	errs = append(errs, err)
	var none bool // as Options.NoDeadLetters
	if said, err := env.Read("dlq", &none); said && err == nil {
		keep := !none
		f.opts.deadLetters = &keep
	}
	return f, errors.Join(errs...)
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
  --url URL               store for messages and results, instead of all others that are set
                          in code, environment or file (a backend of none stays)
  --log-level LEVEL       debug, info, warn or error (default: info)
  --help                  show this text

A flag beats its environment variable (CHICORY_CONCURRENCY, CHICORY_QUEUES,
CHICORY_STRICT, CHICORY_DLQ, CHICORY_SHUTDOWN_TIMEOUT, CHICORY_LOG_LEVEL), which is
for what the program leaves open; docs/configuration.md lists more of them.
CHICORY_URL is for programs that set no store in code.

Exit codes: 0 stopped, 1 failed, 2 bad usage.
`, program, runtime.NumCPU(), defaultGrace.Round(time.Second))
}
