package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/worker"
)

// A poison is the task that TestPoison's workers die of, among neighbours.
const (
	killer     = 5
	neighbours = 24
)

var poisoned = chicory.Define[int, int]("poison", chicory.Queue("q"), chicory.MaxRetries(0))

// TestPoison restarts a worker program until all tasks of a file have ended, one
// of which kills it at once, each time: that one is dead-lettered after
// MaxDeliveries, or one more, and the others finish.
func TestPoison(t *testing.T) {
	t.Parallel()
	for _, concurrency := range []int{1, 4} {
		for _, limit := range []int{3, 0} { // 0 is the default, 5
			t.Run(fmt.Sprintf("%dx%d", concurrency, limit), func(t *testing.T) {
				t.Parallel()
				testPoison(t, concurrency, limit)
			})
		}
	}
}

func testPoison(t *testing.T, concurrency, limit int) {
	dir := t.TempDir()
	app := poisonApp(t, dir)
	task := poisoned.On(app)
	for i := range neighbours + 1 {
		if _, err := task.Send(t.Context(), i, chicory.ID(name(i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := app.Close(); err != nil {
		t.Fatal(err)
	}
	deaths, begin := 0, time.Now()
	for poisonWorker(t, dir, concurrency, limit) {
		if deaths++; deaths > 20 {
			t.Fatal("it is never dead-lettered")
		}
	}
	took := time.Since(begin)

	app = poisonApp(t, dir)
	defer app.Close()
	letters := 0
	for letter, err := range app.DeadLetters("q").All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		letters++
		want(t, "dead letter", letter.ID, name(killer))
		want(t, "reason", letter.Reason, "poison")
	}
	want(t, "dead letters", letters, 1)
	for i := range neighbours + 1 {
		if state, err := poisoned.On(app).Result(name(i)).State(t.Context()); i != killer && state != chicory.StateSuccess {
			t.Errorf("%s: %v, %v", name(i), state, err)
		}
	}
	starts := readStarts(t, dir)
	again := 0
	for i, n := range starts {
		if i != killer {
			again += n - 1
		}
	}
	if limit == 0 {
		limit = 5
	}
	if n := starts[killer]; n < limit || n > limit+1 || n != deaths {
		t.Errorf("the killer started %d times in %d deaths, want %d or one more", n, deaths, limit)
	}
	t.Logf("concurrency %d, MaxDeliveries %d: the killer started %d times; %d neighbours finished, %d starts of them were repeated; %v",
		concurrency, limit, starts[killer], neighbours, again, took.Round(time.Millisecond))
}

func poisonApp(t *testing.T, dir string) *chicory.App {
	t.Helper()
	app, err := chicory.New(chicory.Config{URL: "bolt:" + filepath.Join(dir, "jobs.db")})
	if err == nil {
		err = app.Connect(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// poisonWorker runs a worker program, and reports whether it died.
func poisonWorker(t *testing.T, dir string, concurrency, limit int) (died bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("BOLT_TEST_POISON=%d %d %s", concurrency, limit, dir))
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.Exited()) {
		t.Fatalf("the worker: %v\n%s", err, out)
	}
	return err != nil
}

// readStarts returns how often each task was started.
func readStarts(t *testing.T, dir string) map[int]int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "starts"))
	if err != nil {
		t.Fatal(err)
	}
	starts := map[int]int{}
	for line := range strings.Lines(string(text)) {
		i, _ := strconv.Atoi(strings.TrimSpace(line))
		starts[i]++
	}
	return starts
}

// workPoisoned is the main function of the worker program. It ends when all
// tasks have.
func workPoisoned(args string) error {
	var o worker.Options
	var dir string
	if _, err := fmt.Sscan(args, &o.Concurrency, &o.MaxDeliveries, &dir); err != nil {
		return err
	}
	starts, err := os.OpenFile(filepath.Join(dir, "starts"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	app, err := chicory.New(chicory.Config{URL: "bolt:" + filepath.Join(dir, "jobs.db")})
	if err != nil {
		return err
	}
	defer app.Close()
	poisoned.Handle(app, func(_ context.Context, i int) (int, error) {
		fmt.Fprintln(starts, i)
		if i == killer {
			self, _ := os.FindProcess(os.Getpid())
			self.Kill()
			select {}
		}
		time.Sleep(5 * time.Millisecond) // work
		return i, nil
	})
	ctx := context.Background()
	stop, err := worker.New(app, o).Start(ctx)
	if err != nil {
		return err
	}
	for i := range neighbours + 1 {
		if _, err := poisoned.On(app).Result(name(i)).Get(ctx); err != nil && !errors.Is(err, chicory.ErrDeadLettered) {
			return err
		}
	}
	return stop()
}
