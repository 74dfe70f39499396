package chicory_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/worker"
)

type benchArgs struct{ X, Y int }

// benchApp is an app on memory with a worker that counts what it ran.
func benchApp(b *testing.B, concurrency int, opts ...chicory.TaskOption) (*chicory.Task[benchArgs, int], *atomic.Int64, func(int64)) {
	b.Helper()
	app, err := chicory.New(chicory.Config{URL: "memory:", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	var ran atomic.Int64
	var target atomic.Int64
	reached := make(chan struct{}, 1)
	task := chicory.Register(app, "bench.add", func(_ context.Context, in benchArgs) (int, error) {
		if ran.Add(1) == target.Load() {
			reached <- struct{}{}
		}
		return in.X + in.Y, nil
	}, opts...)
	if err := app.Connect(b.Context()); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- worker.New(app, worker.Options{Concurrency: concurrency}).Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		if err := app.Close(); err != nil {
			b.Error(err)
		}
	})
	return task, &ran, func(n int64) {
		target.Store(n)
		if ran.Load() < n {
			<-reached
		}
	}
}

// BenchmarkTasks sends and runs no-op tasks through the typed API, results
// kept: ns and allocations are per task, from Send to the end of the handler.
func BenchmarkTasks(b *testing.B) {
	for _, producers := range []int{1, 8, 64} {
		for _, mode := range []string{"send", "batch100"} {
			b.Run(fmt.Sprintf("%s/producers=%d", mode, producers), func(b *testing.B) {
				task, ran, wait := benchApp(b, max(8, producers))
				before := ran.Load()
				b.ReportAllocs()
				b.ResetTimer()
				produce(b, task, producers, mode == "batch100")
				wait(before + int64(b.N))
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
			})
		}
	}
}

func produce(b *testing.B, task *chicory.Task[benchArgs, int], producers int, batch bool) {
	b.Helper()
	var wg sync.WaitGroup
	for p := range producers {
		n := b.N / producers
		if p < b.N%producers {
			n++
		}
		wg.Go(func() {
			size := 1
			if batch {
				size = 100
			}
			for ; n > 0; n -= size {
				if !batch {
					if _, err := task.Send(b.Context(), benchArgs{1, 2}); err != nil {
						b.Error(err)
					}
					continue
				}
				if _, err := task.DelayMany(b.Context(), make([]benchArgs, min(n, size))); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// rawCodec carries bytes as they are, so that what is measured is core.
type rawCodec struct{}

func (rawCodec) ContentType() string { return "application/octet-stream" }

func (rawCodec) Append(dst []byte, v any) ([]byte, error) {
	return append(dst, v.([]byte)...), nil
}

func (rawCodec) Decode(src []byte, v any) error {
	*v.(*[]byte) = src
	return nil
}

// BenchmarkCore is BenchmarkTasks without a codec: subtract the driver's own
// BenchmarkCycle to see what core adds to a task.
func BenchmarkCore(b *testing.B) {
	for _, producers := range []int{8, 64} {
		b.Run(fmt.Sprintf("producers=%d", producers), func(b *testing.B) {
			app := chicory.Must(chicory.New(chicory.Config{URL: "memory:", Codec: rawCodec{}, Logger: slog.New(slog.DiscardHandler)}))
			defer app.Close()
			left := make(chan struct{}, 1)
			var ran atomic.Int64
			task := chicory.Register(app, "bench.core", func(_ context.Context, in []byte) ([]byte, error) {
				if ran.Add(1) == int64(b.N) {
					left <- struct{}{}
				}
				return in, nil
			})
			stop := chicory.Must(worker.New(app, worker.Options{Concurrency: 64}).Start(b.Context()))
			defer stop()
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			arg := []byte("12345678")
			for p := range producers {
				wg.Go(func() {
					for i := p; i < b.N; i += producers {
						if _, err := task.Send(b.Context(), arg); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
			<-left
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}

// BenchmarkRoundTrip is Delay and Get of one task at a time per goroutine.
func BenchmarkRoundTrip(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			task, _, _ := benchApp(b, 8)
			b.ReportAllocs()
			b.SetParallelism(max(1, callers/2))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					r, err := task.Delay(b.Context(), benchArgs{1, 2})
					if err != nil {
						b.Error(err)
						return
					}
					if v, err := r.Get(b.Context()); v != 3 || err != nil {
						b.Errorf("got %d, %v", v, err)
						return
					}
				}
			})
		})
	}
}
