// Package bolt keeps tasks and their records in one file, without a server. It
// is a broker and a backend in one: for programs that run on one machine and
// must lose nothing when they are killed or the power fails.
//
// # URLs
//
//	bolt:jobs.db                 a file in the working directory
//	bolt:/var/lib/app/jobs.db    an absolute path, also as bolt:///var/…
//	bolt:jobs.db?max=N           at most N pending messages
//	bolt:jobs.db?maxsize=10GiB   the file's limit, see [Options]; also KiB, MiB
//
// The file is created if it is not there; its directory must exist. A broker
// and a backend that are opened with the same file share it, so that messages
// and records move in one step. There is no other parameter. Programs that need
// no URL use [Open], [Store.Broker] and [Store.Backend].
//
// # Durability
//
// A call returns once what it has done is on the disk: messages, settlements,
// records, dead letters, control keys and leases of queues. Calls that come
// together share one commit, which is two fdatasync: the file is as fast as
// its disk is at that, times the number of callers. In memory only is what ends
// with the process anyway: leases, and that an at-least-once task is STARTED
// where the broker covers the backend.
//
// After a crash, messages that were leased are ready again at once: the file's
// lock proves that their worker is dead. Their delivery was not counted, unless
// it had been suspected: messages that a crash finds in the file are counted
// before they are handed out, from then on. So a task that kills its process
// is delivered at most once more than its count says.
//
// # Delivery semantics
//
// They are those of [github.com/chicory-go/chicory/drivers/memory]: an atomic
// settlement, unique IDs, timed leases, ten priorities that are first in, first
// out. Across a restart, messages are in line by the time since when they were
// ready.
//
// # Faults
//
//   - A file belongs to one process at a time; another one gets an error within
//     a second. In one process all share it.
//   - A file that is not a bbolt file, cut off, damaged or of a newer version is
//     an error of the opening. Single values that are damaged are logged, passed
//     over and left in the file.
//   - On a full disk, or at the limit of the file, new messages are refused with
//     [driver.ErrFull], which is transient; settling goes on, in room that the
//     file keeps for it, unless results need more. A second after there is space,
//     new messages are accepted again.
//   - After a commit whose outcome is unknown nothing more is done: every call
//     fails until the file was closed and opened again.
//   - Messages and results of more than 16 MiB are refused.
//
// The file keeps its largest size until [Compact] rewrites it. Use a local disk,
// and copy the file only while it is closed.
//
// # Memory
//
// What is pending has an index in memory, of some 600 bytes per message,
// and envelopes up to 64 MiB. The last 65,536 records are in memory as well;
// others, and dead letters, are read from the file.
//
// # As
//
// [driver.As] finds [*Broker] and [*Backend].
package bolt
