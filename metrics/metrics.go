package metrics

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
	"github.com/chicory-go/chicory/worker"
)

// Options of Metrics. The zero value is the documented default.
type Options struct {
	// Buckets of the histograms, in seconds; nil is 1 ms to 15 minutes.
	Buckets []float64
}

var defaultBuckets = []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 900}

// Metrics is a prometheus.Collector of one app and its workers in this process.
// A second app wants a second one, registered with
// prometheus.WrapRegistererWith and a label. It is safe for concurrent use.
type Metrics struct {
	dispatches   *prometheus.CounterVec
	dispatchTime *prometheus.HistogramVec
	taskTime     *prometheus.HistogramVec
	running      *prometheus.GaugeVec
	settled      *prometheus.CounterVec

	mu      sync.Mutex
	app     *chicory.App
	workers []*worker.Worker
}

var (
	slots    = prometheus.NewDesc("chicory_worker_slots", "Handlers that the worker may run at once.", []string{"worker"}, nil)
	busy     = prometheus.NewDesc("chicory_worker_slots_busy", "Handlers of the worker that run, or do not return.", []string{"worker"}, nil)
	healthy  = prometheus.NewDesc("chicory_worker_healthy", "1 while the worker runs and can take tasks, else 0.", []string{"worker"}, nil)
	messages = prometheus.NewDesc("chicory_queue_messages", "Messages of the queue, by state.", []string{"queue", "state"}, nil)
	oldest   = prometheus.NewDesc("chicory_queue_oldest_ready_age_seconds", "Age of the oldest message that is ready.", []string{"queue"}, nil)
	up       = prometheus.NewDesc("chicory_queues_up", "1 if the store told of its queues at this scrape, else 0.", nil, nil)
)

// New returns metrics to be registered with a prometheus.Registerer.
func New(o Options) *Metrics {
	if o.Buckets == nil {
		o.Buckets = defaultBuckets
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: o.Buckets}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &Metrics{
		dispatches:   counter("chicory_dispatches_total", "Tasks sent, by outcome.", "queue", "task", "outcome"),
		dispatchTime: histogram("chicory_dispatch_duration_seconds", "Time until a task was stored or refused.", "queue", "task"),
		taskTime:     histogram("chicory_task_duration_seconds", "Time in handlers, by outcome.", "queue", "task", "outcome"),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "chicory_tasks_running", Help: "Handlers that run."},
			[]string{"queue", "task"}),
		settled: counter("chicory_deliveries_settled_total", "Deliveries settled, by the state of their task from then on.",
			"queue", "task", "state", "reason"),
	}
}

// WatchApp makes each scrape tell of the app's queues: of all there are on its
// store, where its broker can count them. It replaces an app watched before.
func (m *Metrics) WatchApp(app *chicory.App) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.app = app
}

// WatchWorker makes each scrape tell of w. Workers are told apart by name.
func (m *Metrics) WatchWorker(w *worker.Worker) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.workers = append(m.workers, w)
}

// Dispatch is a chicory.Middleware: it counts and times what is sent.
func (m *Metrics) Dispatch(next chicory.Dispatch) chicory.Dispatch {
	return func(ctx context.Context, out *chicory.Outgoing) error {
		begin := time.Now()
		err := next(ctx, out)
		queue, task, outcome := label(out.Queue), label(out.Name), "success"
		if err != nil {
			outcome = "error"
		}
		m.dispatchTime.WithLabelValues(queue, task).Observe(time.Since(begin).Seconds())
		m.dispatches.WithLabelValues(queue, task, outcome).Inc()
		return err
	}
}

// Run is a worker.Middleware: it counts and times handlers.
func (m *Metrics) Run(next worker.Handler) worker.Handler {
	return func(ctx context.Context) error {
		info, _ := chicory.TaskFrom(ctx)
		queue, task := label(info.Queue), label(info.Name)
		running := m.running.WithLabelValues(queue, task)
		running.Inc()
		begin, result := time.Now(), "panic" // unless it returns
		defer func() {
			running.Dec()
			m.taskTime.WithLabelValues(queue, task, result).Observe(time.Since(begin).Seconds())
		}()
		err := next(ctx)
		result = outcome(ctx, err)
		return err
	}
}

// outcome is how a handler ended.
func outcome(ctx context.Context, err error) string {
	if err == nil {
		return "success"
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, chicory.ErrTimeout):
		return "timeout"
	case errors.Is(cause, chicory.ErrCancelled):
		return "cancelled"
	case errors.Is(cause, chicory.ErrShutdown):
		return "shutdown"
	case errors.Is(cause, chicory.ErrLeaseLost):
		return "lease_lost"
	}
	var snooze *engine.SnoozeError
	var panicked *engine.PanicError
	switch {
	case errors.As(err, &snooze):
		return "snooze"
	case errors.As(err, &panicked):
		return "panic"
	}
	return "error"
}

// Settled is for worker.Options.OnSettled: it counts what became of deliveries.
func (m *Metrics) Settled(o worker.Outcome) {
	state := strings.ToLower(string(o.State))
	switch {
	case o.Released:
		state = "released"
	case state == "":
		return // it had been decided, and counted, before
	}
	m.settled.WithLabelValues(label(o.Queue), label(o.Name), state, o.Reason).Inc()
}

func (m *Metrics) own() []prometheus.Collector {
	return []prometheus.Collector{m.dispatches, m.dispatchTime, m.taskTime, m.running, m.settled}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.own() {
		c.Describe(ch)
	}
	for _, d := range []*prometheus.Desc{slots, busy, healthy, messages, oldest, up} {
		ch <- d
	}
}

// scrapeTimeout bounds what a scrape asks of the store.
const scrapeTimeout = 5 * time.Second

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.own() {
		c.Collect(ch)
	}
	m.mu.Lock()
	app, workers := m.app, m.workers
	m.mu.Unlock()
	for _, w := range workers {
		gauge(ch, slots, float64(w.Concurrency()), w.Name())
		gauge(ch, busy, float64(w.Running()), w.Name())
		gauge(ch, healthy, truth(w.Health() == nil), w.Name())
	}
	if app == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	stats, err := inspect(ctx, app)
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	gauge(ch, up, truth(err == nil))
	for _, s := range stats {
		gauge(ch, messages, float64(s.Ready), s.Queue, "ready")
		gauge(ch, messages, float64(s.Leased), s.Queue, "leased")
		gauge(ch, messages, float64(s.Delayed), s.Queue, "delayed")
		gauge(ch, messages, float64(s.Dead), s.Queue, "dead")
		gauge(ch, oldest, s.Oldest.Seconds(), s.Queue)
	}
}

// label makes a name a value of a label, which must be UTF-8.
func label(name string) string { return strings.ToValidUTF8(name, "\ufffd") }

func gauge(ch chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	for i, l := range labels {
		labels[i] = label(l)
	}
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func truth(ok bool) float64 {
	if ok {
		return 1
	}
	return 0
}

// inspect counts the queues of app's store. A broker that cannot is
// errors.ErrUnsupported.
func inspect(ctx context.Context, app *chicory.App) ([]driver.QueueStats, error) {
	eng, err := app.Core().Engine()
	if err != nil {
		return nil, err
	}
	in, ok := driver.As[driver.Inspector](eng.Broker)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	queues, err := in.Queues(ctx)
	if err != nil {
		return nil, err
	}
	return in.Inspect(ctx, queues)
}
