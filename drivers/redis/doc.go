// Package redis is a driver on Redis, 6.2 or newer: broker and backend on one
// server or cluster, or each on its own. Import it for its effect:
//
//	import _ "github.com/chicory-go/chicory/drivers/redis"
//
// # URLs
//
//	redis://localhost:6379/0            a database of a server
//	redis://user:password@host:6379     with a user of its access lists
//	rediss://host:6379                  over TLS
//	rediss://host:6379?ca_file=/ca.pem  over TLS, to a server of that authority
//	unix:///run/redis.sock?db=1         over a socket
//	redis://host:6379?prefix=shop       keys begin with shop:, not with chicory:
//
// The server may be a node of a cluster; the others are found through it.
//
// A server that wants certificates of its clients is shown cert_file and key_file.
// Other parameters are those of [github.com/redis/go-redis/v9.ParseURL], but for
// max_retries: a command that is repeated after a lost reply is carried out twice,
// so the driver never has a client do that. Programs that have a client of their
// own use [NewBroker] and [NewBackend].
//
// # Rights
//
// A user needs no more than these, and other prefixes where the URL says so:
//
//	ACL SETUSER user on >password ~chicory:* &chicory:* -@all
//	  +info +ping +subscribe +unsubscribe +publish +evalsha +eval +time
//	  +del +exists +get +set +pexpire +sadd +smembers
//	  +hdel +hexists +hget +hgetall +hlen +hmget +hset +hsetnx
//	  +xack +xadd +xclaim +xdel +xgroup +xinfo +xlen +xpending +xrange +xreadgroup
//	  +zadd +zcard +zcount +zpopmin +zrange +zrangebyscore +zrank +zrem +zscore
//
// # Delivery semantics
//
// Every call to a server is one script, so one step: a settlement with its record and what
// follows on it, a publish with its record. Where broker and backend share a server
// and namespace, the broker covers the backend.
//
// A message that was handed out is leased by its place among the group's pending
// entries; those of a dead worker come back within the lease and three seconds. A
// delivery is fenced by a generation, which rises when the message is given back or
// its lease runs out. Nothing of a queue is taken back before the same process of the
// server has served it for a lease: while the server was away, did not answer, refused
// writes or failed over to another one, nobody could extend.
//
// Waiting is told, not polled: whoever waits is named with the queue, and what makes
// a message ready has the server tell as many of them as can take it. Once a second
// one worker looks for leases that ran out. A reply to a claim that is lost counts as
// a death of the message, and comes back after a lease.
//
// Messages of three levels of priority (0 to 2, 3 to 6, 7 to 9) come in the order in
// which they were published. Delays are kept on the server's clock.
//
// # Durability
//
// A publish is as durable as the server is configured: with appendonly and
// appendfsync always nothing that was acknowledged is lost; with everysec a power
// failure may lose a second, the death of the process nothing; without
// appendonly everything since the last snapshot. A server that evicts keys when it is
// full loses tasks: set maxmemory-policy to noeviction, which the driver warns of.
// Then publishes are refused with [github.com/chicory-go/chicory/driver.ErrFull], and
// workers drain it.
//
// # Limits
//
//   - Messages and results of more than 4 MiB are refused.
//   - A ring is refused.
//
// # Clusters
//
// A cluster keeps all of a queue on one node, and the records of tasks spread over all
// nodes. So the broker does not cover the backend: records are written beside messages,
// not with them, as between two servers. What follows on a task in its own queue, as a
// retry or a dead letter, is one step with its settlement; what follows in another queue
// is stored first. An ID that is alive is refused in its own queue only. Every end of a
// task is told to all nodes, on channels, and one message may wake more workers than
// can take it, if they listen to other nodes. A worker of several queues asks for each,
// one after the other. While a slot is moved to another node, calls for its keys fail as
// those to a server that is away do. The node that the URL names must be up at first. A
// user needs these rights besides:
//
//	+cluster|slots +command +asking
package redis
