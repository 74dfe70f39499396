// Command redis measures Chicory on Redis beside asynq, gocraft/work and taskq, in
// one process, on a private redis-server on the loopback.
//
//	cd bench && go run ./redis                                   everything, within 15 minutes
//	cd bench && go run ./redis -n 2000 -rounds 1 -samples 5      a quick pass, within 2 minutes: no figures to quote
//	cd bench && go run ./redis -rows '^drain.*100'               some workloads
//	cd bench && go run ./redis -appendfsync always               with an append-only file
//
// Every round of a workload measures all peers, one after the other on an empty
// server, each round starting with another one. What is told is the median of the
// rounds, and the median, least and greatest of the ratios within a round. A ratio
// above one is in Chicory's favour, whether more or less of a figure is better.
//
// # Workloads
//
// A drain begins before the worker is started and ends when the store holds no task
// that is ready or leased; stopping the worker is not timed. Nothing is published
// meanwhile, so the CPU of this process is the worker's.
//
// Delayed tasks are off their time by how much later, or earlier, they start than they
// are due: asynq and gocraft/work count whole seconds, and begin some too early.
//
// Far workloads reach the server through a proxy in this process, which adds 1.2 ms
// to each direction and limits nothing else.
//
// # What the peers promise, and their settings
//
// "Results kept" has Chicory write a record per task with its result, and asynq a
// result with a retention of a day. gocraft/work and taskq have no results: they
// are measured beside as they are, with less to do. All acknowledge after the
// handler. Where a peer has no batches, it publishes one by one.
//
//   - Every handler is given its argument decoded by the peer's usual codec: JSON for
//     Chicory and gocraft/work, msgpack for taskq. asynq's is the plain bytes.
//   - Chicory: the defaults.
//   - asynq: TaskCheckInterval 1 ms and DelayedTaskCheckInterval 10 ms, which do not
//     touch the drain of a full queue; a pool of connections for all its handlers.
//     "asynq as it comes" has its intervals of 1 s and 5 s, where they matter.
//   - gocraft/work: a connection for every handler. It has no intervals to set.
//   - taskq: reserves 100 at a time, with a buffer of as many, and blocks for 100 ms
//     at most where nothing is ready. Its scheduler of delayed tasks runs every 1 to 1.5 s.
//   - raw: no task queue, but what Redis allows a plain client: XADD, 100 in a pipeline
//     where batches are measured, and four goroutines that XREADGROUP 100, then XACK
//     and XDEL them in one pipeline. Ratios leave it out.
package main
