package main

import (
	"cmp"
	"context"
	"math"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// A cost is what something took.
type cost struct{ time, worker, server time.Duration }

// measure tells what f costs in time, and in CPU of this process and of the server.
func (s *server) measure(ctx context.Context, f func() error) (cost, error) {
	runtime.GC() // what was before is not paid for by f
	server, err := s.cpu(ctx)
	if err != nil {
		return cost{}, err
	}
	worker, begin := selfCPU(), time.Now()
	if err := f(); err != nil {
		return cost{}, err
	}
	c := cost{time: time.Since(begin), worker: selfCPU() - worker}
	after, err := s.cpu(ctx)
	c.server = after - server
	return c, err
}

func selfCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // only for arguments that are wrong
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perSecond and µsEach spread over n tasks.
func perSecond(n int, d time.Duration) float64 { return float64(n) / d.Seconds() }
func µsEach(d time.Duration, n int) float64 {
	return float64(d) / float64(time.Microsecond) / float64(n)
}
func inMs(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// quantile returns the value that a share of q of vs does not exceed.
func quantile[T cmp.Ordered](vs []T, q float64) T {
	vs = slices.Sorted(slices.Values(vs))
	return vs[max(0, int(math.Ceil(q*float64(len(vs))))-1)]
}
