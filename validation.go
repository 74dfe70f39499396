package chicory

import (
	"fmt"
	"reflect"
	"runtime/debug"

	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/internal/engine"
)

// A ValidationMode says which values of a task are checked: by their own method
// Validate() error, if they have one, on the value or on a pointer to it, and
// by Config.Validator. Only the argument or result itself is asked, not what it
// holds. A check that panics, as a Validate may on a nil pointer, refuses.
//
// An argument that is refused where it is sent is a *ValidationError, and
// nothing is enqueued. One that a worker refuses never reaches the handler, and
// a result that is refused never reaches the caller: the task is
// dead-lettered with the reason "validation", without a retry, and Get returns
// a *TaskError that matches ErrValidation.
type ValidationMode string

// The validation modes.
const (
	// ValidationNone checks nothing.
	ValidationNone ValidationMode = "none"
	// ValidationInputs checks arguments, where they are sent and again before
	// the handler: the default.
	ValidationInputs ValidationMode = "inputs"
	// ValidationOutputs checks results.
	ValidationOutputs ValidationMode = "outputs"
	// ValidationStrict checks arguments and results, and refuses arguments with
	// fields that the handler's type does not have, as StrictFields does. The
	// codec must have a strict form.
	ValidationStrict ValidationMode = "strict"
)

func (m ValidationMode) inputs() bool  { return m == ValidationInputs || m == ValidationStrict }
func (m ValidationMode) outputs() bool { return m == ValidationOutputs || m == ValidationStrict }

func (m ValidationMode) check() error {
	switch m {
	case ValidationNone, ValidationInputs, ValidationOutputs, ValidationStrict:
		return nil
	}
	return fmt.Errorf("%w: validation mode %q", ErrValidation, string(m))
}

// Validation sets which values of the task are checked; the default is
// Config.Validation. Given to Handle it holds for the workers alone.
func Validation(mode ValidationMode) TaskOption {
	return taskOnly(func(s *taskSettings) error { s.validation = mode; return mode.check() })
}

// A ValidationError says that an argument or a result was refused by its
// Validate method, by Config.Validator or for a field that nobody knows. It
// matches ErrValidation.
type ValidationError struct {
	Task  string // the task's name
	Value string // "argument" or "result"
	Err   error  // why
}

// Error says what was refused, and why.
func (e *ValidationError) Error() string {
	return fmt.Sprintf("chicory: %s of %s refused: %v", e.Value, e.Task, e.Err)
}

// Unwrap returns why the value was refused.
func (e *ValidationError) Unwrap() error { return e.Err }

// Is reports whether target is ErrValidation.
func (e *ValidationError) Is(target error) bool { return target == ErrValidation }

// Code returns "validation".
func (e *ValidationError) Code() string { return "validation" }

// checker returns the check of a task's arguments or results, nil if there is
// nothing to ask.
func checker[T any](on bool, task, value string, also func(any) error) func(T) error {
	own := ownCheck[T]()
	if !on || own == nil && also == nil {
		return nil
	}
	return func(v T) error {
		if err := ask(&v, own, also); err != nil {
			return &ValidationError{Task: task, Value: value, Err: err}
		}
		return nil
	}
}

func ask[T any](v *T, own func(*T) error, also func(any) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &engine.PanicError{Value: p, Stack: string(debug.Stack())}
		}
	}()
	if own != nil {
		err = own(v)
	}
	if err == nil && also != nil {
		err = also(*v)
	}
	return err
}

type selfValidating interface{ Validate() error }

// ownCheck returns how Ts check themselves, nil if they do not. What an
// interface holds is known only once it is there.
func ownCheck[T any]() func(*T) error {
	want := reflect.TypeFor[selfValidating]()
	switch t := reflect.TypeFor[T](); {
	case t.Implements(want), t.Kind() == reflect.Interface:
		return func(v *T) error {
			if s, ok := any(*v).(selfValidating); ok {
				return s.Validate()
			}
			return nil
		}
	case reflect.PointerTo(t).Implements(want):
		return func(v *T) error { return any(v).(selfValidating).Validate() }
	}
	return nil
}

// strictForm returns the form of c that refuses unknown fields.
func strictForm(c codec.Codec) (codec.Codec, error) {
	s, ok := c.(codec.Stricter)
	if !ok {
		return nil, fmt.Errorf("codec %s has no strict form", c.ContentType())
	}
	return s.Strict(), nil
}
