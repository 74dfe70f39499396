package chicory

import (
	"errors"
	"fmt"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
)

// A TaskOption configures a task where it is defined or registered.
type TaskOption interface{ applyTask(*taskSettings) }

// A CallOption configures one call. It beats the task's options, which beat
// the app's defaults.
type CallOption interface{ applyCall(*callSettings) }

// An Option configures a task or one call.
type Option interface {
	TaskOption
	CallOption
}

// Values that mean "none" or "for ever", where zero means the default.
const (
	// NoTimeout lets a handler run as long as it likes.
	NoTimeout time.Duration = -1
	// Forever keeps a result until it is deleted.
	Forever time.Duration = -1
	// NoSweep, as Config.ResultSweep, trusts notifications alone.
	NoSweep time.Duration = -1
	// NoRetries, as Config.MaxRetries, turns retries off.
	NoRetries = -1
)

type commonSettings struct {
	policy engine.Policy
	errs   []error
}

func (s *commonSettings) add(err error) {
	if err != nil {
		s.errs = append(s.errs, err)
	}
}

func (s *commonSettings) err() error { return errors.Join(s.errs...) }

type taskSettings struct {
	commonSettings
	aliases    []string
	retryIf    func(error) bool
	strict     bool
	validation ValidationMode // empty: the app's
}

type callSettings struct {
	commonSettings
	id      string
	delay   time.Duration
	at      time.Time
	expire  time.Time
	headers map[string]string
}

// both is an Option that sets a field of the policy.
type both func(*engine.Policy) error

func (o both) applyTask(s *taskSettings) { s.add(o(&s.policy)) }
func (o both) applyCall(s *callSettings) { s.add(o(&s.policy)) }

type taskOnly func(*taskSettings) error

func (o taskOnly) applyTask(s *taskSettings) { s.add(o(s)) }

type callOnly func(*callSettings) error

func (o callOnly) applyCall(s *callSettings) { s.add(o(s)) }

// Queue sends the task to a queue: UTF-8, 1 to 200 bytes. The default is
// Config.Queue.
func Queue(name string) Option {
	return both(func(p *engine.Policy) error {
		p.Queue, p.Set = name, p.Set|engine.FieldQueue
		return invalid(driver.CheckQueue(name))
	})
}

// MaxRetries allows n attempts beyond the first, none for 0; the default is 3.
func MaxRetries(n int) Option {
	return both(func(p *engine.Policy) error {
		p.Retries, p.Set = n, p.Set|engine.FieldRetries
		if n < 0 {
			return fmt.Errorf("%w: MaxRetries(%d)", ErrValidation, n)
		}
		return nil
	})
}

// Timeout cancels the handler's context after d, with cause ErrTimeout, which
// counts as a failed attempt. The default is 15 minutes; NoTimeout is none.
func Timeout(d time.Duration) Option {
	return both(func(p *engine.Policy) error {
		p.Timeout, p.Set = d, p.Set|engine.FieldTimeout
		return positive("Timeout", d)
	})
}

// ResultTTL keeps the record for d from the end of the task; the default is
// 24 hours. Forever keeps it until it is deleted. That of a task ended by
// App.Cancel is kept for Config.ResultTTL.
func ResultTTL(d time.Duration) Option {
	return both(func(p *engine.Policy) error {
		p.TTL, p.Set = d, p.Set|engine.FieldTTL
		return positive("ResultTTL", d)
	})
}

// ExpiresIn ends the task as EXPIRED if it has not started d after the call.
func ExpiresIn(d time.Duration) Option {
	return both(func(p *engine.Policy) error {
		p.Expiry, p.Set = d, p.Set|engine.FieldExpiry
		if d <= 0 {
			return fmt.Errorf("%w: ExpiresIn(%v), want more than 0", ErrValidation, d)
		}
		return nil
	})
}

// Priority is 0 (the default) to 9; higher runs first. Drivers have at least 3
// levels.
func Priority(n int) Option {
	return both(func(p *engine.Policy) error {
		p.Priority, p.Set = uint8(n), p.Set|engine.FieldPriority
		if n < 0 || n > 9 {
			return fmt.Errorf("%w: Priority(%d), want 0 to 9", ErrValidation, n)
		}
		return nil
	})
}

// AtLeastOnce runs the task again when its worker dies: the default.
func AtLeastOnce() Option { return delivery(false) }

// AtMostOnce never runs what may have started before: a task whose worker died
// in the middle is dead-lettered with reason "lost". It is retried after an
// observed failure only.
func AtMostOnce() Option { return delivery(true) }

func delivery(once bool) Option {
	return both(func(p *engine.Policy) error {
		p.Once, p.Set = once, p.Set|engine.FieldOnce
		return nil
	})
}

// IgnoreResult stores no result. An at-least-once task then has no record at
// all: it cannot be looked up or cancelled.
func IgnoreResult() Option {
	return both(func(p *engine.Policy) error {
		p.IgnoreResult, p.Set = true, p.Set|engine.FieldIgnore
		return nil
	})
}

// DeadLettering says whether the task is kept among the dead letters once it
// failed for good, the default, or ends as FAILURE.
func DeadLettering(on bool) Option {
	return both(func(p *engine.Policy) error {
		p.DeadLetter, p.Set = on, p.Set|engine.FieldDead
		return nil
	})
}

// RetryIf retries only errors for which f reports true. It belongs to the
// handler's side: it is no call option.
func RetryIf(f func(error) bool) TaskOption {
	return taskOnly(func(s *taskSettings) error {
		if f == nil {
			return fmt.Errorf("%w: RetryIf(nil)", ErrValidation)
		}
		s.retryIf = and(s.retryIf, f)
		return nil
	})
}

// RetryOn retries only errors that match one of targets, by errors.Is. With
// several of RetryIf, RetryOn and IgnoreOn an error is retried if all say so:
// name all targets in one RetryOn.
func RetryOn(targets ...error) TaskOption {
	return RetryIf(func(err error) bool { return matches(err, targets) })
}

// IgnoreOn never retries errors that match one of targets, by errors.Is.
func IgnoreOn(targets ...error) TaskOption {
	return RetryIf(func(err error) bool { return !matches(err, targets) })
}

func matches(err error, targets []error) bool {
	for _, t := range targets {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

func and(f, g func(error) bool) func(error) bool {
	if f == nil {
		return g
	}
	return func(err error) bool { return f(err) && g(err) }
}

// Alias makes the handler serve an older name too, so that a rename loses no
// task under way.
func Alias(names ...string) TaskOption {
	return taskOnly(func(s *taskSettings) error {
		s.aliases = append(s.aliases, names...)
		for _, n := range names {
			if err := checkName(n); err != nil {
				return fmt.Errorf("Alias: %w", err)
			}
		}
		return nil
	})
}

// StrictFields refuses arguments with fields that the handler's type does not
// have; the codec must have a strict form. By default they are ignored, so that
// producers may be newer.
func StrictFields() TaskOption {
	return taskOnly(func(s *taskSettings) error { s.strict = true; return nil })
}

// After holds the task back for d, on the store's clock.
func After(d time.Duration) CallOption {
	return callOnly(func(s *callSettings) error {
		s.delay, s.at = d, time.Time{}
		if d < 0 {
			return fmt.Errorf("%w: After(%v)", ErrValidation, d)
		}
		return nil
	})
}

// At holds the task back until t, by this machine's clock. A time that has
// passed is now.
func At(t time.Time) CallOption {
	return callOnly(func(s *callSettings) error { s.at, s.delay = t, 0; return nil })
}

// ExpiresAt ends the task as EXPIRED if it has not started by t.
func ExpiresAt(t time.Time) CallOption {
	return callOnly(func(s *callSettings) error {
		s.expire = t
		if t.IsZero() {
			return fmt.Errorf("%w: ExpiresAt of the zero time", ErrValidation)
		}
		return nil
	})
}

// ID chooses the task's id, 1 to 128 bytes of [A-Za-z0-9._:-]. Another task of
// that id is refused with ErrDuplicate while the first is enqueued, running,
// dead-lettered or on record, and for two hours after its record has expired or
// was deleted, so that no late message of the first can be taken for the second.
func ID(id string) CallOption {
	return callOnly(func(s *callSettings) error { s.id = id; return invalid(driver.CheckID(id)) })
}

// Header adds a header. Names that start with "chicory-" are reserved.
func Header(key, value string) CallOption {
	return callOnly(func(s *callSettings) error {
		if s.headers == nil {
			s.headers = map[string]string{}
		}
		s.headers[key] = value
		return checkHeader(key)
	})
}

const reservedHeaders = "chicory-"

func checkHeader(key string) error {
	if key == "" || len(key) >= len(reservedHeaders) && key[:len(reservedHeaders)] == reservedHeaders {
		return fmt.Errorf("%w: header %q: empty or reserved", ErrValidation, key)
	}
	return nil
}

// positive accepts durations above zero and the constant for none.
func positive(what string, d time.Duration) error {
	if d > 0 || d == -1 {
		return nil
	}
	return fmt.Errorf("%w: %s(%v), want more than 0", ErrValidation, what, d)
}

func invalid(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrValidation, err)
}
