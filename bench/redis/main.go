package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"slices"
	"syscall"
	"time"
)

// A peer is a task queue that is measured.
type peer interface {
	// fill publishes n no-op tasks whose results are kept, from p goroutines, in
	// batches where the peer has them, if batch is above one.
	fill(ctx context.Context, n, p, batch int) error
	// drain runs them with c at once, and returns once all are settled.
	drain(ctx context.Context, n, c int) error
	close()
}

// A figure is one round of a workload.
type figure struct {
	rate           float64 // tasks a second
	client, server float64 // CPU, µs a task
}

var (
	tasks  = flag.Int("n", 20000, "tasks of a round")
	rounds = flag.Int("rounds", 5, "rounds")
)

func main() {
	flag.Parse()
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	s, err := startServer()
	if err != nil {
		return err
	}
	defer s.stop()
	peers := []struct {
		name string
		open func(ctx context.Context, addr string) (peer, error)
	}{{"chicory", openChicory}, {"asynq", openAsynq}}
	type workload struct {
		name               string
		producers, batch   int
		concurrency        int
		measuresPublishing bool
	}
	workloads := []workload{
		{"publish, 1 goroutine", 1, 1, 0, true},
		{"publish, 64 goroutines", 64, 1, 0, true},
		{"publish, batches of 100", 1, 100, 0, true},
		{"drain, concurrency 1", 8, 100, 1, false},
		{"drain, concurrency 10", 8, 100, 10, false},
		{"drain, concurrency 50", 8, 100, 50, false},
		{"drain, concurrency 100", 8, 100, 100, false},
	}
	for _, w := range workloads {
		all := make([][]figure, len(peers))
		for range *rounds {
			for i, p := range peers {
				if err := s.flush(ctx); err != nil {
					return err
				}
				q, err := p.open(ctx, s.addr)
				if err != nil {
					return err
				}
				fill := func() error { return q.fill(ctx, *tasks, w.producers, w.batch) }
				var f figure
				if w.measuresPublishing {
					f, err = s.measure(fill)
				} else if err = fill(); err == nil {
					f, err = s.measure(func() error { return q.drain(ctx, *tasks, w.concurrency) })
				}
				q.close()
				if err != nil {
					return fmt.Errorf("%s: %s: %w", p.name, w.name, err)
				}
				all[i] = append(all[i], f)
			}
		}
		fmt.Printf("%-26s", w.name)
		for i, p := range peers {
			fmt.Printf("  %s %7.0f/s %5.1f+%5.1f µs", p.name, median(all[i], func(j int) float64 { return all[i][j].rate }),
				median(all[i], func(j int) float64 { return all[i][j].client }), median(all[i], func(j int) float64 { return all[i][j].server }))
		}
		fmt.Printf("  ratio %.2f\n", median(all[0], func(j int) float64 { return all[0][j].rate / all[1][j].rate }))
	}
	return nil
}

func median(fs []figure, of func(i int) float64) float64 {
	vs := make([]float64, len(fs))
	for i := range fs {
		vs[i] = of(i)
	}
	slices.Sort(vs)
	return vs[len(vs)/2]
}

// measure times f, and the CPU that this process and the server take for it.
func (s *server) measure(f func() error) (figure, error) {
	client, server, begin := selfCPU(), s.cpu(), time.Now()
	if err := f(); err != nil {
		return figure{}, err
	}
	took, n := time.Since(begin), float64(*tasks)
	return figure{n / took.Seconds(), float64((selfCPU() - client).Microseconds()) / n,
		float64((s.cpu() - server).Microseconds()) / n}, nil
}

func selfCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
