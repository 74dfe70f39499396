// Package amqp is a driver on RabbitMQ, 3.10 or newer and 4: a broker, for any backend.
// Import it for its effect:
//
//	import _ "github.com/chicory-go/chicory/drivers/amqp"
//
// # URLs
//
//	amqp://user:password@host:5672/vhost    a virtual host; "/" is written %2F, or left out
//	amqps://host                            over TLS
//	amqps://host?ca_file=/ca.pem            over TLS, to a server of that authority
//	amqp://h1?addr=h2:5672&addr=h3:5672     more addresses of a cluster, tried in order
//	amqp://host?prefix=shop                 names begin with shop., not with chicory.
//	amqp://host?queue=classic               tasks in classic queues, not in quorum queues
//	amqp://host?consumer_timeout=2h         see Long tasks
//	amqp://host?management=http://host:15672   see Counts
//	amqp://host?passive=true                declare nothing, see Rights
//
// A server that wants certificates of its clients is shown cert_file and key_file.
// Programs that open a broker themselves use [Open].
//
// What is wrong when a broker is opened is returned: an address that does not answer,
// and as an [*AccessError] a user, a password or a virtual host. A queue that exists
// with other arguments is a [*MismatchError], which names the argument. Once it is open, a
// broker connects again by itself, for ever.
//
// # Delivery semantics
//
// A publish returns when the server has confirmed the message, and routed it: quorum
// queues, and those of delays and dead letters always are, have written it on a majority
// of their nodes then. Messages are not deduplicated. A settlement publishes what follows
// and waits for the confirmations, then acknowledges. The acknowledgement itself is not
// confirmed; if the connection ends within moments the message may come back.
//
// A delivery is held as long as the connection lives that brought it: its end is known
// at once, and closes Delivery.Lost. What was delivered by one connection cannot be
// settled on the next. Messages of a dead worker come back when the server learns of its
// death: at once, or if its machine is gone within 20 to 30 s, by missed heartbeats.
//
// The server pushes messages. What a worker has not asked for within 50 ms goes back:
// it is published again, under the same Copy, as the server would count a return as a
// death; so its place in the queue changes. A death counts for all messages that had been
// pushed. From the third delivery of a message on, which may be what kills its workers, a
// worker has nothing else at hand when it starts it.
//
// Priorities are three queues (0 to 2, 3 to 6, 7 to 9). A higher one, an earlier queue of a
// strict order and a heavier one are preferred: where one of them may have more, the
// server is asked before another is served.
//
// # Delays
//
// A delay is waited for in queues of the server, one for each hexadecimal digit of its
// milliseconds that is not zero: up to 120 queues in a namespace, of which the first 15, 30
// and so on are declared when first needed. A delay beyond 49 days is armed again
// by the worker that meets the message, by its own clock. What cannot be passed on, as its
// queue was deleted, is tried again every three minutes.
//
// A cluster of RabbitMQ 3.10 or 3.11 that was upgraded from 3.8 must have its feature flag
// stream_queue enabled. Without it the server passes delayed messages on at most once, and
// does not say so: one may be lost when a node restarts.
//
// # Dead letters
//
// Each queue has one for its dead letters, which holds them whole. RabbitMQ cannot read
// a queue without taking it apart: looking through takes all of them, the first
// 10,000, and gives them back, one client at a time. Use it for people, not in hot paths.
// While somebody looks, a count may be short. A dead letter that was stored twice is one
// everywhere but in Len. What cannot be decoded is in Len only; a Purge of all removes it.
//
// # Long tasks
//
// RabbitMQ ends deliveries that are held for longer than its consumer_timeout, 30 minutes
// unless it is configured. Workers refuse tasks with a longer time-out at their start.
// For longer ones configure the server and tell the driver with the URL; from 3.12
// on, and with quorum queues that do not exist yet, the URL alone is enough.
//
// # Counts
//
// Ready and dead messages are counted by the server. What is delayed, and for how long
// the oldest waits, is not known. What is leased, and the queues that other processes
// declared, are known with the management API, some seconds late.
//
// # Rights
//
// A user needs configure, write and read on names that begin with the prefix, and write
// on amq.default. One that may not configure uses passive=true, on what an administrator
// has imported from [Definitions]; to look through dead letters it needs all three
// rights on the names <prefix>.<namespace>.lock. followed by anything.
//
// # Limits
//
//   - Messages of more than 4 MiB are refused.
//   - A server that runs out of memory or disk space takes no messages: publishing waits
//     within its context, then fails with [github.com/chicory-go/chicory/driver.ErrFull];
//     workers drain it. The first publish of a connection learns of it by waiting. Nobody
//     can look through dead letters meanwhile, which fails with ErrFull too.
//   - A worker that stops during such an alarm tries for five seconds to give back what it
//     had at hand. Then the server takes it back and counts a delivery of each: at-most-once
//     tasks among them may be dead-lettered as lost. What is at hand through an alarm of half
//     an hour runs into consumer_timeout.
//   - A queue that is made within some three seconds before its server is killed may be lost
//     with what is in it: RabbitMQ has not made it durable yet.
//   - Of messages in classic queues RabbitMQ tells after a crash that they may have been
//     delivered. Their Count is one too high then, and at-most-once tasks among them are
//     dead-lettered as lost although they did not start. It counts no further deaths.
//   - Delete queues only while no worker receives from them.
package amqp
