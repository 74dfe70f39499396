// Package health answers the probes of an orchestrator over HTTP:
//
//	http.Handle("/livez", health.Live(w))
//	http.Handle("/readyz", health.Ready(w))
//
// A worker is alive unless handlers ignore their cancelled contexts and keep
// their slots: only a restart frees these. It is ready while it also runs, can
// reach its broker and is not stopping; no restart helps where it is not.
//
// Handlers answer GET and HEAD with 200 and "ok", or 503 and one line for each
// problem, as plain text. The lines name workers, tasks and their ids: serve
// them where only operators look.
package health

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/chicory-go/chicory/worker"
)

// Live returns a handler for a liveness probe of workers, which may be several
// of one process. It is safe for concurrent use and does no I/O besides.
func Live(workers ...*worker.Worker) http.Handler {
	return handler(workers, func(err error) error {
		var hung *worker.HungError
		if errors.As(err, &hung) {
			return hung
		}
		return nil
	})
}

// Ready returns a handler for a readiness probe of workers. It is safe for
// concurrent use and does no I/O besides.
func Ready(workers ...*worker.Worker) http.Handler {
	return handler(workers, func(err error) error { return err })
}

// handler tells of what matters of each worker's health.
func handler(workers []*worker.Worker, matters func(error) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
			return
		}
		var problems []string
		for _, one := range workers {
			if err := matters(one.Health()); err != nil {
				problems = append(problems, fmt.Sprintf("worker %s: %s", one.Name(), strings.ReplaceAll(err.Error(), "\n", "; ")))
			}
		}
		h.Set("Cache-Control", "no-store")
		if len(problems) > 0 {
			http.Error(w, strings.Join(problems, "\n"), http.StatusServiceUnavailable)
			return
		}
		h.Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n") // whoever asked has gone
	})
}
