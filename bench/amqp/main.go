package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var (
	size   = flag.Int("n", 20000, "tasks of a round; machinery has a quarter of it")
	rounds = flag.Int("rounds", 5, "rounds")
)

// What all peers do alike.
const (
	publishers = 64
	handlers   = 100
	prefetch   = 200
	textSize   = 1024
	timeout    = 3 * time.Minute // of one peer in one round
)

// A peer is measured; open returns its queue, empty.
type peer struct {
	name string
	part int // it has n over part tasks
	open func(ctx context.Context, at place) (queue, error)
}

// A queue is a peer's. Run is called for each task that runs.
type queue interface {
	publish(ctx context.Context, text string) error
	work(ctx context.Context, run func()) (stop func() error, err error)
	close() error
}

// A place is where a peer finds its servers; name is no other queue's.
type place struct {
	amqp, redis, name string
	pid               int // of RabbitMQ
}

var peers = []peer{
	{"raw", 1, openRaw},
	{"chicory", 1, chicoryOn(nil)},
	{"chicory, memory", 1, chicoryOn(inMemory)},
	{"chicory, redis", 1, chicoryOn(onRedis)},
	{"machinery", 4, machineryOn(false)},
	{"machinery, redis", 4, machineryOn(true)},
}

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	servers, err := startServers()
	if err != nil {
		return err
	}
	defer servers.stop()
	rates, cpus := map[string][]float64{}, map[string][2][]float64{}
	for round := range *rounds {
		for i := range peers {
			p := peers[(round+i)%len(peers)]
			fmt.Fprintln(os.Stderr, p.name)
			rate, cpu, err := measure(ctx, p, place{servers.rabbit.Addr, servers.redis.Addr, fmt.Sprintf("bench%d-%d", round, i), servers.rabbit.Pid()})
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			rates[p.name] = append(rates[p.name], rate)
			cpus[p.name] = [2][]float64{append(cpus[p.name][0], cpu[0]), append(cpus[p.name][1], cpu[1])}
		}
	}
	fmt.Printf("n %d, rounds %d\n\n| peer | tasks/s | to raw | CPU of this process | of RabbitMQ, µs/task |\n|---|---:|---:|---:|---:|\n", *size, *rounds)
	for _, p := range peers {
		ratios := make([]float64, *rounds)
		for i := range ratios {
			ratios[i] = rates[p.name][i] / rates[peers[0].name][i]
		}
		fmt.Printf("| %s | %.0f | %.2f× (%.2f to %.2f) | %.1f | %.1f |\n", p.name, median(rates[p.name]),
			median(ratios), slices.Min(ratios), slices.Max(ratios), median(cpus[p.name][0]), median(cpus[p.name][1]))
	}
	return nil
}

// measure publishes and runs tasks, and returns how many a second, and the CPU that each
// takes of this process and of RabbitMQ.
func measure(ctx context.Context, p peer, at place) (rate float64, cpu [2]float64, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done within %v", timeout))
	defer cancel()
	q, err := p.open(ctx, at)
	if err != nil {
		return 0, cpu, err
	}
	defer func() {
		if closing := q.close(); err == nil {
			err = closing
		}
	}()
	const warm = 2 * publishers // opens connections
	n := *size / p.part
	var ran atomic.Int64
	reached := make(chan struct{}, 2)
	stop, err := q.work(ctx, func() {
		if now := ran.Add(1); now == warm || now == warm+int64(n) {
			reached <- struct{}{}
		}
	})
	if err != nil {
		return 0, cpu, err
	}
	all := func(n int) error {
		if err := publishAll(ctx, q, n); err != nil {
			return err
		}
		select {
		case <-reached:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := all(warm); err != nil {
		return 0, cpu, err
	}
	begin, own, server := time.Now(), selfCPU(), cpuOf(at.pid)
	if err := all(n); err != nil {
		return 0, cpu, err
	}
	rate = float64(n) / time.Since(begin).Seconds()
	for i, spent := range []time.Duration{selfCPU() - own, cpuOf(at.pid) - server} {
		cpu[i] = float64(spent) / float64(time.Microsecond) / float64(n)
	}
	return rate, cpu, stop()
}

func publishAll(ctx context.Context, q queue, n int) error {
	text := strings.Repeat("x", textSize)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for next.Add(1) <= int64(n) && ctx.Err() == nil {
				if err := q.publish(ctx, text); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func median(vs []float64) float64 {
	vs = slices.Sorted(slices.Values(vs))
	return vs[(len(vs)-1)/2]
}

func selfCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // only for arguments that are wrong
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOf is the CPU time of a process, in steps of 10 ms.
func cpuOf(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		panic(err) // the server has ended
	}
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after) // from the third on: user and system time are 14 and 15
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			panic(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
