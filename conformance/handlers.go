package conformance

import (
	"context"
	"errors"
	"time"
)

var errFails = errors.New("fails")

func instant(context.Context, int) (int, error) { return 42, nil }

// failing is a handler that fails.
func failing(context.Context, int) (int, error) { return 0, errFails }

// sleeping is a handler that takes d, and obeys its context.
func sleeping(d time.Duration, result error) handler {
	return func(ctx context.Context, _ int) (int, error) {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return 42, result
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

// stubborn ignores its context until the world ends.
func (w *world) stubborn() handler {
	end := make(chan struct{})
	w.Cleanup(func() { close(end) })
	return func(context.Context, int) (int, error) { <-end; return 0, errFails }
}

// on is a plan with one fault: at the nth call, from 1, of op.
func on(op string, nth int, f fault) plan {
	return func(got string) fault {
		if got != op {
			return none
		}
		if nth--; nth == 0 {
			return f
		}
		return none
	}
}

// always is a plan with one fault at every call of op.
func always(op string, f fault) plan {
	return func(got string) fault {
		if got == op {
			return f
		}
		return none
	}
}

// cutOff is the plan of a worker whose leases run out: it cannot extend.
func cutOff(rest plan) plan {
	return func(op string) fault {
		if op == "extend" {
			return refused
		}
		if rest != nil {
			return rest(op)
		}
		return none
	}
}
