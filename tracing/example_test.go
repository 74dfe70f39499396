package tracing_test

import (
	"context"
	"fmt"
	"log/slog"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/tracing"
	"github.com/chicory-go/chicory/worker"
)

func Example() {
	provider := sdk.NewTracerProvider() // with an exporter, in a program
	tr := tracing.New(tracing.Options{TracerProvider: provider})

	ctx := context.Background()
	app := chicory.Must(chicory.New(chicory.Config{URL: "memory:", Logger: slog.New(slog.DiscardHandler),
		Middleware: []chicory.Middleware{tr.Dispatch}}))
	defer app.Close()
	whose := chicory.Register(app, "whose", func(ctx context.Context, _ chicory.None) (string, error) {
		return trace.SpanContextFromContext(ctx).TraceID().String(), nil
	})
	stop := chicory.Must(worker.New(app, worker.Options{Middleware: []worker.Middleware{tr.Run}}).Start(ctx))
	defer stop()

	ctx, request := provider.Tracer("web").Start(ctx, "GET /")
	defer request.End()
	id := chicory.Must(chicory.Must(whose.Delay(ctx, chicory.None{})).Get(ctx))
	fmt.Println(id == request.SpanContext().TraceID().String())
	// Output: true
}
