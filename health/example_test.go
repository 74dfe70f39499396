package health_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/health"
	"github.com/chicory-go/chicory/worker"
)

func Example() {
	app := chicory.Must(chicory.New(chicory.Config{URL: "memory:", Logger: slog.New(slog.DiscardHandler)}))
	defer app.Close()
	chicory.Register(app, "t", func(context.Context, int) (int, error) { return 1, nil })
	w := worker.New(app, worker.Options{Name: "one"})

	probes := http.NewServeMux() // served on a port of its own
	probes.Handle("/livez", health.Live(w))
	probes.Handle("/readyz", health.Ready(w))
	ask := func(path string) {
		answer := httptest.NewRecorder()
		probes.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Print(answer.Code, " ", answer.Body)
	}
	ask("/livez")
	ask("/readyz")
	stop := chicory.Must(w.Start(context.Background()))
	ask("/readyz")
	stop()
	// Output:
	// 200 ok
	// 503 worker one: chicory: worker is not running
	// 200 ok
}
