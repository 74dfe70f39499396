package metrics_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/metrics"
	"github.com/chicory-go/chicory/worker"
)

func Example() {
	m := metrics.New(metrics.Options{})
	registry := prometheus.NewRegistry() // served by promhttp.HandlerFor
	registry.MustRegister(m)

	ctx := context.Background()
	app := chicory.Must(chicory.New(chicory.Config{URL: "memory:", Logger: slog.New(slog.DiscardHandler),
		Middleware: []chicory.Middleware{m.Dispatch}}))
	defer app.Close()
	double := chicory.Register(app, "double", func(_ context.Context, n int) (int, error) { return 2 * n, nil })
	w := worker.New(app, worker.Options{Name: "one", Middleware: []worker.Middleware{m.Run}, OnSettled: m.Settled})
	m.WatchWorker(w)
	m.WatchApp(app)
	stop := chicory.Must(w.Start(ctx))
	fmt.Println(chicory.Must(double.Delay(ctx, 21)).Get(ctx))
	stop()

	for _, family := range chicory.Must(registry.Gather()) {
		if strings.HasSuffix(family.GetName(), "_total") {
			fmt.Println(family.GetName(), family.GetMetric()[0].GetCounter().GetValue())
		}
	}
	// Output:
	// 42 <nil>
	// chicory_deliveries_settled_total 1
	// chicory_dispatches_total 1
}
