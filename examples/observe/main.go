// Command observe is a worker that Prometheus scrapes, whose traces begin where
// tasks are sent, and that answers the probes of an orchestrator.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/health"
	"github.com/chicory-go/chicory/metrics"
	"github.com/chicory-go/chicory/tracing"
	"github.com/chicory-go/chicory/worker"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	m, registry := metrics.New(metrics.Options{}), prometheus.NewRegistry()
	registry.MustRegister(m)
	provider := sdk.NewTracerProvider() // give it an exporter
	defer func() { err = errors.Join(err, provider.Shutdown(ctx)) }()
	tr := tracing.New(tracing.Options{TracerProvider: provider})

	// Middleware that comes first is outermost: it also sees what the others do.
	app, err := chicory.New(chicory.Config{URL: "memory:", Middleware: []chicory.Middleware{m.Dispatch, tr.Dispatch}})
	if err != nil {
		return err
	}
	defer app.Close()
	task := chicory.Register(app, "tasks.trace", func(ctx context.Context, _ chicory.None) (string, error) {
		return trace.SpanContextFromContext(ctx).TraceID().String(), nil
	})
	w := worker.New(app, worker.Options{Name: "one", Middleware: []worker.Middleware{m.Run, tr.Run}, OnSettled: m.Settled})
	m.WatchWorker(w)
	m.WatchApp(app)

	// On a port that only operators reach.
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.Handle("/livez", health.Live(w))
	mux.Handle("/readyz", health.Ready(w))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		server.Close()
		<-served
	}()
	base := "http://" + listener.Addr().String()

	stop, err := w.Start(ctx)
	if err != nil {
		return err
	}
	if err := printBody(out, base+"/readyz", ""); err != nil {
		return err
	}
	traced, span := provider.Tracer("observe").Start(ctx, "request")
	res, err := task.Delay(traced, chicory.None{})
	span.End()
	if err != nil {
		return err
	}
	id, err := res.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "The task ran in the trace of the request:", id == span.SpanContext().TraceID().String())
	if err := stop(); err != nil {
		return err
	}
	if err := printBody(out, base+"/readyz", ""); err != nil {
		return err
	}
	return printBody(out, base+"/metrics", "chicory_deliveries_settled_total")
}

// printBody prints the lines at url that start with prefix.
func printBody(out io.Writer, url, prefix string) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, prefix) {
			fmt.Fprintf(out, "%d %s", resp.StatusCode, line)
		}
	}
	return nil
}
