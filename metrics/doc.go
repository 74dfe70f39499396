// Package metrics exports Chicory to Prometheus.
//
//	m := metrics.New(metrics.Options{})
//	prometheus.MustRegister(m)
//	app, err := chicory.New(chicory.Config{URL: "memory:", Middleware: []chicory.Middleware{m.Dispatch}})
//	w := worker.New(app, worker.Options{Middleware: []worker.Middleware{m.Run}, OnSettled: m.Settled})
//	m.WatchWorker(w)
//	m.WatchApp(app)
//
// Each of these lines may be left out: a web server needs Dispatch only.
//
//	chicory_dispatches_total{queue,task,outcome}              counter    tasks sent; outcome is success or error
//	chicory_dispatch_duration_seconds{queue,task}             histogram  until the broker stored them, or refused
//	chicory_task_duration_seconds{queue,task,outcome}         histogram  handlers that returned
//	chicory_tasks_running{queue,task}                         gauge      handlers that run
//	chicory_deliveries_settled_total{queue,task,state,reason} counter    what became of deliveries
//	chicory_worker_slots{worker}                              gauge      handlers that may run at once
//	chicory_worker_slots_busy{worker}                         gauge      handlers that run, or do not return
//	chicory_worker_healthy{worker}                            gauge      1 while Worker.Health is nil, else 0
//	chicory_queue_messages{queue,state}                       gauge      state is ready, leased, delayed or dead
//	chicory_queue_oldest_ready_age_seconds{queue}             gauge      how long the first in line waits
//	chicory_queues_up                                         gauge      1 if the store told of its queues, else 0
//
// The outcome of a handler is success, error, panic, snooze, or why its context
// had ended before it returned an error: timeout, cancelled, shutdown,
// lease_lost. The state of a settled delivery is that of its task from then on,
// in lower case: success, retry, dead_lettered, failure, expired, cancelled (of
// tasks that ran), or released if it was given back; the reason is that of
// chicory.TaskError. Alert on dead_lettered.
//
// Labels are names of queues and of tasks that have a handler, so do not make
// queues of what there is no end of, such as users. The tasks of a DelayMany
// are counted as they are encoded. A default name of a worker changes with its
// process: set worker.Options.Name to keep the series. All processes that watch
// an app on one store tell the same of its queues: aggregate by max, or let one
// process do it. Each scrape then asks the store, for 5 seconds at most.
//
// It is a package of its own so that other programs do not link the client
// library.
package metrics
