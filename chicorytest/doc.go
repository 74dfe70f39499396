// Package chicorytest helps to test programs that use Chicory: in memory, in fake
// time, with workers that crash where the test wants it.
//
// [Context] is for a handler alone. All else begins with [New], a kit with an app:
//
//	synctest.Test(t, func(t *testing.T) {
//		kit := chicorytest.New(t, chicorytest.Options{})
//		remind := chicory.Register(kit.App, "remind", h.Remind)
//		id, err := remind.Send(t.Context(), "ann", chicory.After(24*time.Hour))
//		…
//		kit.Advance(24 * time.Hour) // takes no time
//		kit.AssertState(id, chicory.StateSuccess)
//	})
//
// # Time
//
// Inside a bubble of testing/synctest time is fake: it passes while everything in
// the bubble waits, and then at once. The kit has no clock of its own, so
// time.Sleep, time-outs and tickers of the code under test keep the same time.
// [Kit.RunUntilIdle] runs what is due, [Kit.Advance] lets time pass. Outside of a
// bubble a kit only tells what was sent.
//
// # Fidelity
//
// Messages and records are in two memory stores, so that a task takes every step
// that the delivery contract knows. Worker, retries, leases and dead letters are
// those of production; docs/testing.md is the guide.
package chicorytest
