package conformance

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/worker"
)

var (
	allFlag    = flag.Bool("conformance.all", false, "try every pair of faults; in real time, every single fault")
	randomFlag = flag.Int("conformance.random", 0, "random schedules to run; 0 is a few")
	seedFlag   = flag.Uint64("conformance.seed", 0, "run this one random schedule")
)

// A scenario is the life of one task: what its handler does, attempt by
// attempt, in which mode, and what is done to it from outside.
type scenario struct {
	once, bare bool
	fails      int           // attempts of the first epoch that fail
	retries    int           // the policy's
	replay     bool          // an operator replays it from the dead letters
	cancel     bool          // an operator cancels it early
	park       bool          // the first worker does not know its name
	shutdown   bool          // the first worker is stopped in mid-run
	ttl        time.Duration // of the record; 0 is the default
	delay      bool          // it is delayed
}

func (sc scenario) options() []chicory.TaskOption {
	opts := []chicory.TaskOption{chicory.MaxRetries(sc.retries), soon}
	if sc.once {
		opts = append(opts, chicory.AtMostOnce())
	}
	if sc.ttl > 0 {
		opts = append(opts, chicory.ResultTTL(sc.ttl))
	}
	return opts
}

const (
	everyFault = "whatever call of producer, worker or operator fails, and however, nothing is lost, nothing is stuck, nothing runs twice by surprise: "
)

var faultCases = []Case{
	{Name: "Faults/Success", Contract: everyFault + "a task that succeeds", explore: single(scenario{})},
	{Name: "Faults/Retry", Contract: everyFault + "a task that is retried", explore: single(scenario{fails: 1, retries: 1})},
	{Name: "Faults/Dead", Contract: everyFault + "a task that is dead-lettered", explore: single(scenario{fails: 9, retries: 1})},
	{Name: "Faults/Replay", Contract: everyFault + "a dead-lettered task that is replayed", explore: single(scenario{fails: 9, replay: true})},
	{Name: "Faults/Cancel", Contract: everyFault + "a task that is cancelled", explore: single(scenario{cancel: true, delay: true})},
	{Name: "Faults/TTL", Contract: everyFault + "a task whose record soon expires", explore: single(scenario{fails: 1, retries: 1, ttl: time.Second})},
	{Name: "Faults/DeadTTL", Contract: everyFault + "a dead-lettered task whose record soon expires", explore: single(scenario{fails: 9, ttl: time.Second})},
	{Name: "Faults/ParkTTL", Contract: everyFault + "a task that a worker does not know and whose record soon expires", explore: single(scenario{park: true, fails: 9, ttl: time.Second})},
	{Name: "Faults/OnceDeadTTL", Contract: everyFault + "an at-most-once task that is dead-lettered and whose record soon expires", explore: single(scenario{once: true, fails: 9, ttl: time.Second})},
	{Name: "Faults/Park", Contract: everyFault + "a task that a worker does not know", explore: single(scenario{park: true})},
	{Name: "Faults/Shutdown", Contract: everyFault + "a task whose worker is stopped", explore: single(scenario{shutdown: true, retries: 1})},
	{Name: "Faults/OnceSuccess", Contract: everyFault + "an at-most-once task that succeeds", explore: single(scenario{once: true})},
	{Name: "Faults/OnceRetry", Contract: everyFault + "an at-most-once task that is retried", explore: single(scenario{once: true, fails: 1, retries: 1})},
	{Name: "Faults/OnceDead", Contract: everyFault + "an at-most-once task that is dead-lettered", explore: single(scenario{once: true, fails: 9, retries: 1})},
	{Name: "Faults/OnceReplay", Contract: everyFault + "an at-most-once task that is replayed", explore: single(scenario{once: true, fails: 9, replay: true})},
	{Name: "Faults/OnceCancel", Contract: everyFault + "an at-most-once task that is cancelled", explore: single(scenario{once: true, cancel: true, delay: true})},
	{Name: "Faults/OnceTTL", Contract: everyFault + "an at-most-once task whose record soon expires", explore: single(scenario{once: true, ttl: time.Second})},
	{Name: "Faults/OncePark", Contract: everyFault + "an at-most-once task that a worker does not know", explore: single(scenario{once: true, park: true})},
	{Name: "Faults/OnceShutdown", Contract: everyFault + "an at-most-once task whose worker is stopped", explore: single(scenario{once: true, shutdown: true, retries: 1})},
	{Name: "Faults/Bare", Contract: everyFault + "a task without a backend", explore: single(scenario{bare: true, fails: 1, retries: 1})},
	{Name: "Faults/BareDead", Contract: everyFault + "a task without a backend that is dead-lettered", explore: single(scenario{bare: true, fails: 9})},
	{Name: "Faults/BareOnce", Contract: everyFault + "an at-most-once task without a backend", explore: single(scenario{bare: true, once: true, fails: 1, retries: 1})},
	{Name: "Faults/BareOnceDead", Contract: everyFault + "an at-most-once task without a backend that is dead-lettered", explore: single(scenario{bare: true, once: true, fails: 9})},
	{Name: "Faults/Random", Contract: everyFault + "many tasks on many workers, with faults at random", explore: random},
}

// A schedule says at which steps, counted over all processes, calls fail.
type schedule struct {
	at     [2]int // -1: none
	faults [2]fault
}

// planned counts the faults of s.
func (s schedule) planned() int { return b2i(s.at[0] >= 0) + b2i(s.at[1] >= 0) }

func (s schedule) String() string {
	return fmt.Sprintf("%v at step %d, %v at step %d", s.faults[0], s.at[0], s.faults[1], s.at[1])
}

var noFaults = schedule{at: [2]int{-1, -1}}

// single explores one task: every single fault, and every pair of faults.
func single(sc scenario) func(*exploration) {
	return func(e *exploration) {
		steps := e.life(sc, noFaults)
		if !e.bubble() {
			e.sample(sc, steps)
			return
		}
		pair := rand.IntN(e.stride)
		for n := range steps {
			for f := crashBefore; f <= stalled; f++ {
				one := schedule{at: [2]int{n, -1}, faults: [2]fault{f}}
				after := e.life(sc, one)
				if e.failed() {
					return
				}
				for m := n + 1; m < after; m++ {
					for g := crashBefore; g <= stalled; g++ {
						if pair++; pair%e.stride != 0 {
							continue
						}
						e.life(sc, schedule{at: [2]int{n, m}, faults: [2]fault{f, g}})
					}
				}
			}
		}
		e.proved(sc)
	}
}

// sample tries, in real time, single faults beside each other: three of them,
// or all.
func (e *exploration) sample(sc scenario, steps int) {
	var wg sync.WaitGroup
	perStep := int(stalled)
	all := steps * perStep
	stride := max(1, all/3)
	if *allFlag {
		stride = 1
	}
	for i := e.offset % stride; i < all; i += stride {
		s := schedule{at: [2]int{i / perStep, -1}, faults: [2]fault{crashBefore + fault(i%perStep)}}
		wg.Go(func() {
			e.slots <- struct{}{}
			defer func() { <-e.slots }()
			e.life(sc, s)
		})
	}
	<-e.slots // the schedules need it: explorations that all hold one would wait for ever
	wg.Wait()
	e.slots <- struct{}{}
}

// An exploration runs schedules, each in a world of its own.
type exploration struct {
	*stage     // in real time the exploration holds one of its slots
	offset int // which part of the pairs is tried

	mu           sync.Mutex
	runs         int
	planned, met int // faults
	alone        int // faults tried alone
	missed       int // of those, that met no call
	out          result
}

func (e *exploration) failed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.out.failed
}

// run runs f in a world of its own, unless a schedule has failed already.
func (e *exploration) run(bare bool, opts []chicory.TaskOption, what string, f func(*world)) {
	if e.failed() {
		return
	}
	e.mu.Lock()
	e.runs++
	e.mu.Unlock()
	c := &Case{limit: 40 * 24 * time.Hour, quick: e.bubble(), run: func(c *C) {
		w := newWorld(c, bare, opts...)
		c.Cleanup(func() {
			if c.Failed() {
				c.Logf("%s; calls:\n%s", what, w.story())
			}
		})
		f(w)
	}}
	r := e.execute(c)
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.failed && !e.out.failed {
		e.out = r
	}
}

// life runs sc with the faults of s and returns how many steps there were.
func (e *exploration) life(sc scenario, s schedule) (steps int) {
	met := 0
	e.run(sc.bare, sc.options(), s.String(), func(w *world) { steps, met = sc.live(w, s) })
	e.mu.Lock()
	defer e.mu.Unlock()
	e.planned += s.planned()
	e.met += met
	if s.planned() == 1 {
		e.alone++
		e.missed += 1 - met
	}
	return steps
}

// proved fails the exploration if its faults met nothing: then it proves
// nothing. Nine in ten faults alone must meet their call, unless two workers want
// the same message, and two thirds of all: the order of calls varies.
func (e *exploration) proved(sc scenario) {
	if e.out.failed || (10*e.missed <= e.alone || sc.park) && (e.planned < 50 || 3*e.met >= 2*e.planned) {
		return
	}
	e.out.failed = true
	e.out.lines = append(e.out.lines, fmt.Sprintf("of %d planned faults only %d met a call; %d of those alone did not", e.planned, e.met, e.missed))
}

// A counter gives each step, of whatever process, its fault.
type counter struct {
	mu    sync.Mutex
	s     schedule
	steps int
	met   int // faults
}

func (k *counter) plan(op string) fault {
	if !step(op) {
		return none
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	n := k.steps
	k.steps++
	for i, at := range k.s.at {
		if at == n {
			k.met++
			return k.s.faults[i]
		}
	}
	return none
}

// ends is the plan of the first worker: it closes ended at its first fault.
func (k *counter) ends(ended chan struct{}) plan {
	var once sync.Once
	return func(op string) fault {
		f := k.plan(op)
		if f != none {
			once.Do(func() { close(ended) })
		}
		return f
	}
}

// live lets the task of sc live and judges its end.
func (sc scenario) live(w *world, s schedule) (steps, met int) {
	k := &counter{s: s}
	producer, _ := w.process("producer", k.plan)
	var call []chicory.CallOption
	call = append(call, chicory.ID("task"))
	if sc.delay {
		call = append(call, chicory.After(w.lease/2))
	}
	_, err := w.task(producer, "t").Send(context.Background(), 1, call...)
	sent := err == nil
	cancelled := false
	if sc.cancel && sent {
		operator, _ := w.process("operator", k.plan)
		cancelled = operator.Cancel(context.Background(), "task") == nil
	}
	h := w.handler("t", func(ctx context.Context, n int) (int, error) {
		info, _ := chicory.TaskFrom(ctx)
		var err error
		if info.Epoch == 0 && info.Attempt <= sc.fails {
			err = errFails
		}
		return sleeping(w.sec, err)(ctx, n)
	})
	firstHandler := h
	if sc.park {
		firstHandler = w.handler("other", instant)
	}
	ended := make(chan struct{}) // the first worker's good time
	first := w.start(worker.Options{Concurrency: 1, ShutdownTimeout: worker.NoGrace}, k.ends(ended), firstHandler)
	switch {
	case sc.shutdown:
		w.until(func() bool { n, _ := w.started(); return n > 0 || first.crashed() })
		first.stop()
	case sc.park: // twice, then it is stopped, unless something went wrong
		if w.until(func() bool { return !sent || closed(ended) || first.count("settle") >= 2 }) && !closed(ended) {
			first.stop()
		}
	default:
		w.settleUntil(ended)
	}
	if sc.replay {
		operator, _ := w.process("operator", k.plan)
		operator.DeadLetters(q).Replay(context.Background(), "task")
		w.settleUntil(ended)
	}
	// Not before: it would take from the first what is to go wrong there.
	w.start(one, nil, h)
	if sc.park { // the deploy goes on
		w.sleep(2 * w.lease)
		first.stop()
	}
	w.rest()
	if sc.replay && len(w.deadOf(w.watch, q)) > 0 && w.startsOf("task/1/1") == 0 { // it failed: again
		w.app().DeadLetters(q).Replay(context.Background(), "task")
		w.rest()
	}
	k.mu.Lock()
	steps, met = k.steps, k.met
	k.mu.Unlock()
	sc.judge(w, sent, cancelled, met)
	return steps, met
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// judge holds the end against the invariants I1 to I11.
func (sc scenario) judge(w *world, sent, cancelled bool, faults int) {
	w.TB.Helper()
	total, most := w.started()
	letters := w.deadOf(w.watch, q)
	state := w.stateOf("task")
	w.expect(w.live() == 0, "I1: something is stuck though faults have stopped")
	w.expect(len(letters) <= 1, "I7: a task is among the dead letters once per epoch: got %v", ids(letters))
	lost := false
	for _, l := range letters {
		lost = lost || l.Dead.Reason == driver.ReasonLost
	}
	if sc.once {
		w.expect(most <= 1+b2i(sc.shutdown), "I2: an at-most-once task started more than once per attempt: %v", w.starts)
	} else if w.info.Dedup || !sc.park {
		// Without dedup a doubled task may be parked by one worker while
		// another runs it, and then runs again.
		w.expect(most <= 1+faults+b2i(sc.shutdown), "I3: more starts than %d faults explain: %v", faults, w.starts)
	}
	w.expect(!lost || sc.once && (faults > 0 || sc.shutdown), "only an at-most-once task can be lost, and only by a fault: %+v", letters)
	if cancelled {
		w.expect(total == 0, "I8: a task that was cancelled before its start started: %v", w.starts)
		w.expect(state == driver.Cancelled, "I8: it is %q, want CANCELLED", state)
		return
	}
	if !sent {
		ended := w.bare || state == "" || state.Terminal() || w.recordOf("task").Provisional
		w.expect(ended, "I1: a publish that failed left it %q", state)
		return
	}
	if sc.cancel { // the operator was not told: either
		w.expect(state == driver.Cancelled && total == 0 || state == driver.Success || lost, "it is %q, starts %v", state, w.starts)
		return
	}
	sc.judgeEnd(w, state, len(letters), lost, faults)
}

func (sc scenario) judgeEnd(w *world, state driver.State, letters int, lost bool, faults int) {
	w.TB.Helper()
	total, _ := w.started()
	attempts := min(sc.fails, sc.retries) + 1
	exhausted := sc.fails > sc.retries && !sc.replay
	if sc.replay && !lost {
		// A replay whose run was lost counts as lost; one that ran has ended.
		w.expect(letters == 0 && w.startsOf("task/1/1")+w.startsOf("task/2/1") >= 1, "I7: a replayed task starts in its new epoch: %v, %d dead letters", w.starts, letters)
	} else if !sc.replay {
		w.expect(lost || (letters == 1) == exhausted, "I7: exhausted means dead-lettered, and nothing else does: %d dead letters", letters)
	}
	w.expect(lost || total >= attempts, "I1: it vanished after %v", w.starts)
	if faults == 0 && !sc.shutdown {
		w.expect(total == attempts+b2i(sc.replay), "I3: without faults every attempt starts once: %v", w.starts)
	}
	if w.bare {
		return
	}
	want := driver.Success
	if lost || exhausted {
		want = driver.DeadLettered
	}
	if sc.ttl > 0 {
		w.expect(state == "" || state == want, "I10: an expired record came back as %q", state)
		return
	}
	w.expect(state == want, "I5: the record says %q, want %s", state, want)
	if r := w.recordOf("task"); state == driver.Success {
		w.expect(r != nil && string(r.Body) == "42", "the result is %+v", r)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
