// Package hub lets many goroutines wait for the end of tasks through one
// stream of notifications.
//
// A waiter is registered, then watched, then its record is read, and only then
// waited for, so that no wake-up can be lost. After a gap in the stream
// everything outstanding is read again. A slow sweep is the safety net.
package hub
