// Package batch gathers single operations into batches without timers: items
// pile up while the last batch is in flight, so an idle system adds no latency
// and a busy one fills its batches.
package batch
