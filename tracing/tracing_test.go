package tracing_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/tracing"
	"github.com/chicory-go/chicory/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// setUp returns an app and a worker that are traced, and what they record.
func setUp(t *testing.T, propagator propagation.TextMapPropagator) (*chicory.App, *worker.Worker, *tracetest.SpanRecorder, trace.Tracer) {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(spans))
	tr := tracing.New(tracing.Options{TracerProvider: provider, Propagator: propagator})
	app, err := chicory.NewWith(memory.New().Broker("ns"), memory.New().Backend("ns"), chicory.Config{
		Logger: slog.New(slog.DiscardHandler), Middleware: []chicory.Middleware{tr.Dispatch}, Backoff: chicory.Fixed(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := app.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := app.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	return app, worker.New(app, worker.Options{Middleware: []worker.Middleware{tr.Run}}), spans, provider.Tracer("test")
}

func start(t *testing.T, w *worker.Worker) {
	t.Helper()
	stop, err := w.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// named returns the ended spans of a name, in order.
func named(spans *tracetest.SpanRecorder, name string) (found []sdk.ReadOnlySpan) {
	for _, s := range spans.Ended() {
		if s.Name() == name {
			found = append(found, s)
		}
	}
	return found
}

// TestATraceGoesFromRequestToHandlerAndOn: a request sends a task, whose first
// attempt fails and whose second sends another.
func TestATraceGoesFromRequestToHandlerAndOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app, w, spans, tracer := setUp(t, nil)
		second := chicory.Register(app, "second", func(context.Context, int) (int, error) { return 2, nil })
		first := chicory.Register(app, "first", func(ctx context.Context, _ int) (string, error) {
			if info, _ := chicory.TaskFrom(ctx); info.Attempt == 1 {
				return "", errors.New("not yet")
			}
			r, err := second.Delay(ctx, 1)
			return r.ID(), err
		}, chicory.Queue("q"))
		start(t, w)
		ctx, request := tracer.Start(t.Context(), "request")
		r, err := first.Delay(ctx, 1, chicory.Header("mine", "kept"))
		request.End()
		if err != nil {
			t.Fatal(err)
		}
		id, err := r.Get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := second.Result(id).Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		send, runs := named(spans, "send first"), named(spans, "process first")
		send2, runs2 := named(spans, "send second"), named(spans, "process second")
		if len(send) != 1 || len(runs) != 2 || len(send2) != 1 || len(runs2) != 1 {
			t.Fatalf("spans: %d, %d, %d, %d", len(send), len(runs), len(send2), len(runs2))
		}
		for i, pair := range [][2]sdk.ReadOnlySpan{{named(spans, "request")[0], send[0]}, {send[0], runs[0]}, {send[0], runs[1]}, {runs[1], send2[0]}, {send2[0], runs2[0]}} {
			parent, child := pair[0], pair[1]
			if child.Parent().SpanID() != parent.SpanContext().SpanID() || child.SpanContext().TraceID() != request.SpanContext().TraceID() {
				t.Errorf("pair %d: %s is no child of %s in the trace of the request", i, child.Name(), parent.Name())
			}
		}
		if !runs[0].Parent().IsRemote() || send[0].SpanKind() != trace.SpanKindProducer || runs[0].SpanKind() != trace.SpanKindConsumer {
			t.Errorf("kinds %v and %v, remote %v", send[0].SpanKind(), runs[0].SpanKind(), runs[0].Parent().IsRemote())
		}
		if s := runs[0].Status(); s.Code != codes.Error || s.Description != "not yet" || len(runs[0].Events()) != 1 {
			t.Errorf("a failed attempt: %+v, %v", s, runs[0].Events())
		}
		if s := runs[1].Status(); s.Code != codes.Unset {
			t.Errorf("a good attempt: %+v", s)
		}
		attrs := attribute.NewSet(runs[1].Attributes()...)
		for key, want := range map[attribute.Key]any{"messaging.system": "chicory", "messaging.destination.name": "q", "messaging.message.id": r.ID(),
			"messaging.operation.type": "process", "chicory.task.name": "first", "chicory.task.attempt": int64(2), "chicory.task.deliveries": int64(1)} {
			if v, ok := attrs.Value(key); !ok || v.AsInterface() != want {
				t.Errorf("%s is %v, want %v", key, v.AsInterface(), want)
			}
		}
	})
}

func TestWithoutATraceEachTaskBeginsOne(t *testing.T) {
	t.Parallel()
	app, w, spans, _ := setUp(t, nil)
	task := chicory.Register(app, "t", func(context.Context, int) (int, error) { return 1, nil })
	start(t, w)
	rs, err := task.DelayMany(t.Context(), []int{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chicory.GetAll(t.Context(), rs); err != nil {
		t.Fatal(err)
	}
	sent := named(spans, "send t")
	if len(sent) != 2 || sent[0].SpanContext().TraceID() == sent[1].SpanContext().TraceID() {
		t.Errorf("got %v", sent)
	}
}

func TestSpansTellHowItEnded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app, w, spans, _ := setUp(t, nil)
		asked := 0
		task := chicory.Register(app, "t", func(_ context.Context, how string) (int, error) {
			switch how {
			case "panic":
				panic("no")
			case "exit":
				runtime.Goexit()
			case "snooze":
				if asked++; asked == 1 {
					return 0, chicory.Snooze(time.Second)
				}
			}
			return 1, nil
		}, chicory.MaxRetries(0))
		start(t, w)
		for _, how := range []string{"panic", "exit", "snooze"} {
			r, err := task.Delay(t.Context(), how)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = r.Get(t.Context())
		}
		if _, err := task.Send(t.Context(), strings.Repeat("x", 2<<20)); !errors.Is(err, chicory.ErrTooLarge) {
			t.Fatal(err)
		}
		synctest.Wait()
		runs := named(spans, "process t")
		if len(runs) != 4 {
			t.Fatalf("%d spans, want one of each attempt, that of a handler that exits too", len(runs))
		}
		if s := runs[0].Status(); s.Code != codes.Error {
			t.Errorf("panic: %+v", s)
		}
		if v, _ := attrOf(runs[0], "error.type"); v != "panic" {
			t.Errorf("panic: error.type %q", v)
		}
		if e := runs[2].Events(); runs[2].Status().Code != codes.Unset || len(e) != 1 || e[0].Name != "snooze" {
			t.Errorf("snooze: %+v, %v", runs[2].Status(), e)
		}
		sent := named(spans, "send t")
		if s := sent[len(sent)-1].Status(); s.Code != codes.Error {
			t.Errorf("a dispatch that was refused: %+v", s)
		}
	})
}

func attrOf(s sdk.ReadOnlySpan, key attribute.Key) (string, bool) {
	set := attribute.NewSet(s.Attributes()...)
	v, ok := set.Value(key)
	return v.AsString(), ok
}

// TestPropagators: baggage is stored with the task only where it is asked for.
func TestPropagators(t *testing.T) {
	t.Parallel()
	for name, p := range map[string]propagation.TextMapPropagator{
		"":  nil,
		"v": propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	} {
		app, w, _, _ := setUp(t, p)
		task := chicory.Register(app, "t", func(ctx context.Context, _ int) (string, error) {
			return baggage.FromContext(ctx).Member("k").Value(), nil
		})
		start(t, w)
		member, err := baggage.NewMember("k", "v")
		if err != nil {
			t.Fatal(err)
		}
		bag, err := baggage.New(member)
		if err != nil {
			t.Fatal(err)
		}
		r, err := task.Delay(baggage.ContextWithBaggage(t.Context(), bag), 1)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Get(t.Context()); got != name || err != nil {
			t.Errorf("got baggage %q, %v; want %q", got, err, name)
		}
	}
}
