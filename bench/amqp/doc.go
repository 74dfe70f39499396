// Command amqp measures Chicory on RabbitMQ beside the client library alone and beside
// machinery, in one process, on a private rabbitmq-server and a private redis-server on
// the loopback.
//
//	cd bench && go run ./amqp                       everything, within 5 minutes
//	cd bench && go run ./amqp -n 2000 -rounds 1     a quick pass: no figures to quote
//
// Tasks are published and run at once, until all have run: 64 goroutines publish, each
// waiting for the confirmation of its message, and 100 handlers that do nothing run.
// Arguments are 1 KiB. All queues are quorum queues. Every round measures all peers, each
// round starting with another one. What is told is the median of the rounds, and the
// median, least and greatest of the ratios to the client library within a round.
//
//   - raw: the client library alone, without tasks: 64 goroutines publish with the mandatory
//     flag and wait; one consumer with a prefetch of 200 acknowledges every message.
//   - chicory: results ignored.
//   - chicory, memory: results kept in this process. What it takes more is core's: a
//     record, a start and a verdict for each task.
//   - chicory, redis: results kept on the redis-server. What it takes more than with memory
//     is the cost of a backend apart.
//   - machinery, machinery, redis: with its null backend and its Redis backend, a prefetch
//     of 200.
package main
