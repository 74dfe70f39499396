// Package worker runs tasks: it takes them from an app's broker, runs their
// handlers, a bounded number at once, and records and settles the verdicts.
//
// [Worker.Run] and [Worker.Start] embed a worker in any program; [Main] and
// [MainWith] make a program of it, with flags, environment, signals and exit codes.
//
// # What a worker promises
//
// A delivery is under a lease that one heartbeat extends for all of them, at a
// third of its length. The verdict on a task is recorded before its delivery
// is settled; where either fails it is tried again apart, and the task is not
// run again for it. A handler whose lease was lost, whose task was cancelled
// or whose time is up has its context cancelled with the cause
// (chicory.ErrLeaseLost, ErrCancelled, ErrTimeout); one that ignores that
// keeps its slot, [Worker.Health] names it, and the task goes on elsewhere.
//
// No driver may enter this package.
package worker
