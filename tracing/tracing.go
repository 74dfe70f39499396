// Package tracing carries OpenTelemetry traces from where a task is sent to
// where it runs.
//
//	tr := tracing.New(tracing.Options{})
//	app, err := chicory.New(chicory.Config{URL: "memory:", Middleware: []chicory.Middleware{tr.Dispatch}})
//	w := worker.New(app, worker.Options{Middleware: []worker.Middleware{tr.Run}})
//
// Dispatch makes a span of kind producer, "send images.resize", and puts its
// context into the task's headers (traceparent and tracestate, as W3C Trace
// Context defines them). Run makes a span of kind consumer for each attempt,
// "process images.resize", as a child of it: retries and replays, hours later
// perhaps, belong to the trace that sent the task. What the handler sends is
// traced from its own span on.
//
// Attributes are those of OpenTelemetry's semantic conventions for messaging:
// messaging.system ("chicory"), messaging.operation.type,
// messaging.operation.name, messaging.destination.name (the queue),
// messaging.message.id, error.type; and chicory.task.name, chicory.task.attempt,
// chicory.task.deliveries, chicory.task.epoch. Neither arguments nor results are
// recorded. The text of errors is.
//
// It is a package of its own so that other programs do not link OpenTelemetry.
package tracing

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/internal/engine"
	"github.com/chicory-go/chicory/worker"
)

// Options of a Tracer. The zero value is the documented default.
type Options struct {
	// TracerProvider makes the tracer; nil is OpenTelemetry's global one.
	TracerProvider trace.TracerProvider
	// Propagator writes and reads headers; nil is propagation.TraceContext. One
	// with propagation.Baggage stores the baggage with each task.
	Propagator propagation.TextMapPropagator
}

// A Tracer is the middleware of both sides. It is safe for concurrent use.
type Tracer struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
}

const scope = "github.com/chicory-go/chicory/tracing"

// New returns a tracer.
func New(o Options) *Tracer {
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	if o.Propagator == nil {
		o.Propagator = propagation.TraceContext{}
	}
	return &Tracer{tracer: o.TracerProvider.Tracer(scope), propagator: o.Propagator}
}

// Dispatch is a chicory.Middleware. Its span ends when the task is stored, or
// refused; for the tasks of a DelayMany when they are encoded.
func (t *Tracer) Dispatch(next chicory.Dispatch) chicory.Dispatch {
	return func(ctx context.Context, out *chicory.Outgoing) error {
		ctx, span := t.tracer.Start(ctx, "send "+out.Name, trace.WithSpanKind(trace.SpanKindProducer),
			trace.WithAttributes(attributes("send", out.Queue, out.ID, out.Name)...))
		defer span.End()
		t.propagator.Inject(ctx, propagation.MapCarrier(out.Headers))
		err := next(ctx, out)
		fail(span, err)
		return err
	}
}

// Run is a worker.Middleware. Its span covers one attempt. A snooze is an event
// of the span, not an error.
func (t *Tracer) Run(next worker.Handler) worker.Handler {
	return func(ctx context.Context) error {
		info, _ := chicory.TaskFrom(ctx)
		attrs := append(attributes("process", info.Queue, info.ID, info.Name),
			attribute.Int("chicory.task.attempt", info.Attempt),
			attribute.Int("chicory.task.deliveries", info.Deliveries),
			attribute.Int("chicory.task.epoch", info.Epoch))
		ctx = t.propagator.Extract(ctx, propagation.MapCarrier(info.Headers))
		ctx, span := t.tracer.Start(ctx, "process "+info.Name, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attrs...))
		defer span.End() // a handler may end its goroutine
		err := next(ctx)
		var snooze *engine.SnoozeError
		if errors.As(err, &snooze) {
			span.AddEvent("snooze", trace.WithAttributes(attribute.Float64("chicory.snooze.seconds", snooze.Wait.Seconds())))
			return err
		}
		fail(span, err)
		return err
	}
}

func attributes(operation, queue, id, task string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "chicory"),
		attribute.String("messaging.operation.type", operation),
		attribute.String("messaging.operation.name", operation),
		attribute.String("messaging.destination.name", queue),
		attribute.String("messaging.message.id", id),
		attribute.String("chicory.task.name", task),
	}
}

// fail says on the span that err, unless it is nil, ended it.
func fail(span trace.Span, err error) {
	if err == nil {
		return
	}
	span.SetAttributes(attribute.String("error.type", engine.Kind(err)))
	span.RecordError(err)
	span.SetStatus(codes.Error, err.Error())
}
