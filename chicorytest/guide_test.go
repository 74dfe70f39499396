package chicorytest_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/chicorytest"
)

// The code of docs/testing.md, where TestDocs of the root package compares it.

type Welcome struct{ To string }

var SendWelcome = chicory.Define[Welcome, chicory.None]("mail.welcome",
	chicory.Queue("mail"), chicory.MaxRetries(3), chicory.Fixed(time.Minute))

// SignUp is what the web server does.
func SignUp(ctx context.Context, app *chicory.App, to string) error {
	_, err := SendWelcome.On(app).Send(ctx, Welcome{to}, chicory.After(time.Hour))
	return err
}

// A Postman has the handler, and what it needs.
type Postman struct {
	Mail, Print func(ctx context.Context, to string) error
}

// Welcome sends a mail. If the last attempt fails too, a letter goes out.
func (p *Postman) Welcome(ctx context.Context, in Welcome) error {
	err := p.Mail(ctx, in.To)
	if task, _ := chicory.TaskFrom(ctx); err != nil && task.IsLast {
		return p.Print(ctx, in.To)
	}
	return err
}

var errBusy = errors.New("mail server is busy")

func busy(context.Context, string) error { return errBusy }

func TestLastAttemptPrints(t *testing.T) {
	var printed []string
	p := &Postman{Mail: busy, Print: func(_ context.Context, to string) error {
		printed = append(printed, to)
		return nil
	}}
	ctx := chicorytest.Context(t.Context(), chicory.TaskInfo{Attempt: 4, IsLast: true})
	if err := p.Welcome(ctx, Welcome{To: "ann"}); err != nil || len(printed) != 1 {
		t.Errorf("got %v, printed %v; want a letter", err, printed)
	}
}

func TestSignUpSendsWelcome(t *testing.T) {
	kit := chicorytest.New(t, chicorytest.Options{})
	if err := SignUp(t.Context(), kit.App, "ann"); err != nil {
		t.Fatal(err)
	}
	chicorytest.AssertSent(kit, SendWelcome.On(kit.App), Welcome{To: "ann"})
	for _, m := range chicorytest.Sent(kit, SendWelcome.On(kit.App)) {
		if m.Queue != "mail" || m.Delay != time.Hour {
			t.Errorf("sent to %s, due after %v", m.Queue, m.Delay)
		}
	}
}

func TestWelcomeIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kit := chicorytest.New(t, chicorytest.Options{})
		printed := 0
		p := &Postman{Mail: busy, Print: func(context.Context, string) error { printed++; return nil }}
		SendWelcome.Handle(kit.App, chicory.NoResult(p.Welcome))
		id, err := SendWelcome.On(kit.App).Send(t.Context(), Welcome{To: "ann"})
		if err != nil {
			t.Fatal(err)
		}
		kit.RunUntilIdle()
		kit.AssertState(id, chicory.StateRetry) // the first attempt has failed
		kit.Advance(3 * time.Minute)            // and so have two more
		kit.AssertState(id, chicory.StateSuccess)
		if printed != 1 {
			t.Errorf("printed %d letters, want 1", printed)
		}
	})
}

func TestTransferSurvivesACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kit := chicorytest.New(t, chicorytest.Options{})
		var effects []string
		transfer := chicory.Register(kit.App, "transfer", chicory.NoResult(func(ctx context.Context, id string) error {
			if !slices.Contains(effects, "debit "+id) { // so it may run again
				effects = append(effects, "debit "+id)
			}
			if info, _ := chicory.TaskFrom(ctx); info.Deliveries == 1 {
				kit.CrashNow(ctx) // in a fake of yours
			}
			effects = append(effects, "credit "+id)
			return nil
		}))
		id, err := transfer.Send(t.Context(), "7")
		if err != nil {
			t.Fatal(err)
		}
		kit.RunUntilIdle()       // crashes between debit and credit
		kit.Advance(kit.Lease()) // until the task comes back
		kit.AssertState(id, chicory.StateSuccess)
		if want := []string{"debit 7", "credit 7"}; !slices.Equal(effects, want) {
			t.Errorf("got %q, want %q", effects, want)
		}
	})
}

func TestOnceIsLostInTheMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kit := chicorytest.New(t, chicorytest.Options{})
		runs := 0
		pay := chicory.Register(kit.App, "pay", chicory.NoResult(func(context.Context, int) error {
			runs++
			return nil
		}), chicory.AtMostOnce())
		kit.Crash(chicorytest.InHandler, "pay")
		id, err := pay.Send(t.Context(), 100)
		if err != nil {
			t.Fatal(err)
		}
		kit.RunUntilIdle()
		kit.Advance(kit.Lease())
		kit.AssertDeadLetter(id, "lost")
		if runs != 1 {
			t.Errorf("ran %d times", runs)
		}
	})
}
