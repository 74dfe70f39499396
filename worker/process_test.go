package worker_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

// childVariable makes the test binary a worker program that runs one task of
// its own.
const childVariable = "WORKER_TEST_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childVariable); mode != "" {
		child(mode)
	}
	goleak.VerifyTestMain(m)
}

// child runs worker.Main with a task that prints what happens to it. The mode
// is how long the task takes, or "stubborn" for one that never ends.
func child(mode string) {
	app, err := chicory.New(chicory.Config{URL: "memory:"})
	check(err)
	task := chicory.Register(app, "child.work", func(ctx context.Context, d time.Duration) (string, error) {
		fmt.Println("handler begins")
		if mode == "stubborn" {
			select {}
		}
		select {
		case <-time.After(d):
			fmt.Println("handler ends")
			return "", nil
		case <-ctx.Done():
			fmt.Println("cancelled:", context.Cause(ctx))
			return "", ctx.Err()
		}
	}, chicory.MaxRetries(0))
	check(app.Connect(context.Background()))
	if mode != "idle" {
		d, _ := time.ParseDuration(mode)
		_, err = task.Send(context.Background(), d)
		check(err)
	}
	worker.Main(app)
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(99)
	}
}

// program is a child under the control of a test.
type program struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	t     *testing.T
}

func startProgram(t *testing.T, mode string, args ...string) *program {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = []string{childVariable + "=" + mode, "GOCOVERDIR=" + t.TempDir()}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return &program{cmd, bufio.NewScanner(out), t}
}

// until reads lines up to one that holds text.
func (p *program) until(text string) {
	p.t.Helper()
	var seen []string
	for p.lines.Scan() {
		if seen = append(seen, p.lines.Text()); strings.Contains(p.lines.Text(), text) {
			return
		}
	}
	p.t.Fatalf("program ended without %q; it said:\n%s", text, strings.Join(seen, "\n"))
}

func (p *program) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// exit waits for the end and returns the exit code.
func (p *program) exit() int {
	p.t.Helper()
	for p.lines.Scan() {
	}
	err := p.cmd.Wait()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

func TestSignals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, mode string
		args       []string
		talk       func(*program)
		exit       int
	}{
		{"a running task finishes within the grace", "1s", []string{"--shutdown-timeout=30s"}, func(p *program) {
			p.until("handler begins")
			p.signal(syscall.SIGTERM)
			p.until("handler ends")
		}, 0},
		{"after the grace it is cancelled", "1h", []string{"--shutdown-timeout=100ms"}, func(p *program) {
			p.until("handler begins")
			p.signal(os.Interrupt)
			p.until("cancelled: chicory: worker is shutting down")
		}, 0},
		{"a second signal exits at once", "stubborn", []string{"--shutdown-timeout=1h"}, func(p *program) {
			p.until("handler begins")
			p.signal(syscall.SIGTERM)
			p.until("a second signal exits at once")
			p.signal(syscall.SIGTERM)
		}, 1},
		{"an idle worker stops", "idle", nil, func(p *program) {
			p.until("worker started")
			p.signal(syscall.SIGTERM)
		}, 0},
		{"bad flags", "idle", []string{"--concurrency=-1"}, func(p *program) { p.until("--concurrency") }, 2},
		{"no URL", "idle", []string{"--url", ""}, func(p *program) { p.until("--url is empty: want a URL") }, 2},
		{"unknown driver", "idle", []string{"--url=nosuch:"}, func(p *program) { p.until("nosuch") }, 2},
		{"log level", "1ms", []string{"--log-level=error"}, func(p *program) {
			p.until("handler ends")
			p.signal(syscall.SIGTERM)
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := startProgram(t, tt.mode, tt.args...)
			tt.talk(p)
			if got := p.exit(); got != tt.exit {
				t.Errorf("exit code %d, want %d", got, tt.exit)
			}
		})
	}
}
