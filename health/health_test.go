package health_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/health"
	"github.com/chicory-go/chicory/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newApp(t *testing.T) *chicory.App {
	t.Helper()
	app, err := chicory.NewWith(memory.New().Broker("ns"), memory.New().Backend("ns"), chicory.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := app.Close(); err != nil {
			t.Error(err)
		}
	})
	return app
}

func get(h http.Handler, method string) (int, string, http.Header) {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(method, "/", nil))
	body, _ := io.ReadAll(rec.Body)
	return rec.Code, string(body), rec.Header()
}

// expect compares what both probes say. live and ready are parts of the lines
// they answer, or empty for ok.
func expect(t *testing.T, when string, ws []*worker.Worker, live, ready string) {
	t.Helper()
	for _, p := range []struct {
		name, want string
		h          http.Handler
	}{{"live", live, health.Live(ws...)}, {"ready", ready, health.Ready(ws...)}} {
		code, body, _ := get(p.h, http.MethodGet)
		switch {
		case p.want == "" && (code != http.StatusOK || body != "ok\n"):
			t.Errorf("%s: %s: got %d %q, want ok", when, p.name, code, body)
		case p.want != "" && (code != http.StatusServiceUnavailable || !strings.Contains(body, p.want)):
			t.Errorf("%s: %s: got %d %q, want 503 with %q", when, p.name, code, body, p.want)
		}
	}
}

// TestProbes follows a worker from before its start to after its end, with a
// handler that ignores its cancelled context in between.
func TestProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		app := newApp(t)
		release := make(chan struct{})
		stuck := chicory.Register(app, "stuck", func(context.Context, int) (int, error) { <-release; return 1, nil },
			chicory.Timeout(time.Second), chicory.MaxRetries(0))
		slow := chicory.Register(app, "slow", func(context.Context, int) (int, error) { time.Sleep(10 * time.Second); return 1, nil })
		w := worker.New(app, worker.Options{Name: "one", Concurrency: 2})
		ws := []*worker.Worker{w}
		expect(t, "before", ws, "", "worker one: chicory: worker is not running")

		stop, err := w.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		expect(t, "running", ws, "", "")

		res, err := stuck.Delay(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := res.Get(t.Context()); err == nil { // its time is up, and it does not return
			t.Fatal("a task that ignores its context succeeded")
		}
		synctest.Wait()
		expect(t, "stuck", ws, "stuck ("+res.ID()+")", "worker one: chicory: handlers ignore their cancelled contexts: stuck ("+res.ID()+")")
		close(release)
		synctest.Wait()
		expect(t, "returned", ws, "", "")

		if _, err := slow.Send(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		stopped := make(chan error)
		go func() { stopped <- stop() }()
		synctest.Wait()
		expect(t, "stopping", ws, "", "chicory: worker is stopping")
		if err := <-stopped; err != nil {
			t.Error(err)
		}
		expect(t, "after", ws, "", "not running")
	})
}

// awayBroker is a broker that cannot be received from while away is set.
type awayBroker struct {
	driver.Broker
	away *atomic.Bool
}

func (b awayBroker) Unwrap() any { return b.Broker }

func (b awayBroker) Subscribe(ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
	s, err := b.Broker.Subscribe(ctx, o)
	return awaySubscription{s, b.away}, err
}

type awaySubscription struct {
	driver.Subscription
	away *atomic.Bool
}

func (s awaySubscription) Receive(ctx context.Context, most int) ([]*driver.Delivery, error) {
	if s.away.Load() {
		return nil, errors.New("connection refused")
	}
	return s.Subscription.Receive(ctx, most)
}

// TestABrokerThatIsAway makes a worker unready, which no restart would mend.
func TestABrokerThatIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		away.Store(true)
		app, err := chicory.NewWith(awayBroker{memory.New().Broker("ns"), &away}, memory.New().Backend("ns"), chicory.Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer app.Close()
		task := chicory.Register(app, "t", func(context.Context, int) (int, error) { return 1, nil })
		w := worker.New(app, worker.Options{})
		stop, err := w.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		expect(t, "away", []*worker.Worker{w}, "", "chicory: broker is away: connection refused")
		away.Store(false)
		res, err := task.Delay(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := res.Get(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		expect(t, "back", []*worker.Worker{w}, "", "")
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestEachWorkerIsNamed(t *testing.T) {
	t.Parallel()
	app := newApp(t)
	chicory.Register(app, "t", func(context.Context, int) (int, error) { return 1, nil })
	good, bad := worker.New(app, worker.Options{Name: "good"}), worker.New(app, worker.Options{Name: "bad"})
	stop, err := good.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := get(health.Ready(good, bad), http.MethodGet)
	if strings.Contains(body, "good") || !strings.Contains(body, "worker bad: ") {
		t.Errorf("got %q", body)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if code, body, _ := get(health.Ready(), http.MethodGet); code != http.StatusOK {
		t.Errorf("no workers: %d %q", code, body)
	}
}

func TestMethodsAndHeaders(t *testing.T) {
	t.Parallel()
	code, _, h := get(health.Live(), http.MethodPost)
	if code != http.StatusMethodNotAllowed || h.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, Allow %q", code, h.Get("Allow"))
	}
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		code, _, h := get(health.Live(), method)
		if code != http.StatusOK || h.Get("Cache-Control") != "no-store" || !strings.HasPrefix(h.Get("Content-Type"), "text/plain") {
			t.Errorf("%s: %d, %v", method, code, h)
		}
	}
}
