package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"regexp"
	"time"
)

var (
	tasks   = flag.Int("n", 20000, "tasks of a round of a fast workload; slower ones have a part of it")
	rounds  = flag.Int("rounds", 5, "rounds")
	samples = flag.Int("samples", 15, "samples of a latency in a round")
	fsync   = flag.String("appendfsync", "", "have the server keep an append-only file in TMPDIR, synced as this says: always, everysec or no; empty is no file")
	rows    = flag.String("rows", "", "regular expression of the workloads to run; empty is all")
)

// Limits and distances.
const (
	cellTimeout = 3 * time.Minute // one peer, one round
	oneWay      = 1200 * time.Microsecond
)

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	wanted, err := regexp.Compile(*rows)
	if err != nil {
		return err
	}
	s, err := startServer()
	if err != nil {
		return err
	}
	defer s.stop()
	far, err := startProxy(s.addr, oneWay)
	if err != nil {
		return err
	}
	defer far.stop()
	if err := far.calibrate(ctx); err != nil {
		return err
	}
	b := &bench{server: s, far: far.addr()}
	for _, w := range workloads() {
		if !wanted.MatchString(w.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, w.name)
		if err := b.measure(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return b.report(ctx, os.Stdout)
}

// A bench is what a run of this program has measured, and where.
type bench struct {
	server *server
	far    string // address of the proxy
	table  table
}

// A workload is measured for each of its peers.
type workload struct {
	name   string
	peers  []peer
	far    bool // through the proxy
	keep   bool // results
	rounds int  // at most; 0 is no limit
	run    func(ctx context.Context, c *cell) ([]figure, error)
}

// A cell is one peer in one round of a workload, on an empty server.
type cell struct {
	server *server
	peer   peer
	at     place
}

// A figure is what a cell tells.
type figure struct {
	name, unit string
	value      float64
	more       bool // is better
}

// measure runs the rounds of w, each beginning with another peer.
func (b *bench) measure(ctx context.Context, w workload) error {
	n := *rounds
	if w.rounds > 0 {
		n = min(n, w.rounds)
	}
	for r := range n {
		for i := range w.peers {
			p := w.peers[(i+r)%len(w.peers)]
			figures, err := b.cell(ctx, w, p)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			for _, f := range figures {
				b.table.add(w.name, p.name, f)
			}
		}
	}
	return nil
}

func (b *bench) cell(ctx context.Context, w workload, p peer) ([]figure, error) {
	ctx, cancel := context.WithTimeout(ctx, cellTimeout)
	defer cancel()
	if err := b.server.flush(ctx); err != nil {
		return nil, err
	}
	at := place{addr: b.server.addr, near: b.server.addr, keep: w.keep}
	if w.far {
		at.addr = b.far
	}
	return w.run(ctx, &cell{b.server, p, at})
}

// open opens the peer's queue for the time of f.
func (c *cell) open(ctx context.Context, f func(q queue) error) error {
	q, err := c.peer.open(ctx, c.at)
	if err != nil {
		return err
	}
	err = f(q)
	if closing := q.close(); err == nil {
		err = closing
	}
	return err
}
