package hub

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// store is a backend of records that a test sets.
type store struct {
	driver.Backend
	mu      sync.Mutex
	records map[string]*driver.Record
	gets    int
	err     error
	onGet   func()
}

func (s *store) Get(ctx context.Context, ids []string) ([]*driver.Record, error) {
	if s.onGet != nil {
		s.onGet()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	if s.err != nil {
		return nil, s.err
	}
	rs := make([]*driver.Record, len(ids))
	for i, id := range ids {
		rs[i] = s.records[id]
	}
	return rs, nil
}

func (s *store) set(id string, state driver.State) *driver.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &driver.Record{}
	r.ID, r.State = id, state
	if s.records == nil {
		s.records = map[string]*driver.Record{}
	}
	s.records[id] = r
	return r
}

// notifier adds a stream that a test feeds.
type notifier struct {
	store
	stream chan []*driver.Record
	fail   chan error
	closed chan struct{}
}

func newNotifier() *notifier {
	return &notifier{stream: make(chan []*driver.Record, 16), fail: make(chan error, 1), closed: make(chan struct{})}
}

func (n *notifier) Address() string                       { return "here" }
func (n *notifier) Watch(context.Context, []string) error { return nil }
func (n *notifier) Unwatch([]string)                      {}
func (n *notifier) Info() driver.BackendInfo              { return driver.BackendInfo{} }

func (n *notifier) Next(ctx context.Context) ([]*driver.Record, error) {
	select {
	case rs := <-n.stream:
		return rs, nil
	case err := <-n.fail:
		return nil, err
	case <-n.closed:
		return nil, driver.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// notifications is the stream of a notifier; both have a Close of their own.
type notifications struct{ *notifier }

func (n notifications) Close() error { close(n.closed); return nil }

type pushing struct{ *notifier }

func (p pushing) Notify(context.Context) (driver.Notifications, error) {
	return notifications(p), nil
}

func open(t *testing.T, b driver.Backend, o Options) *Hub {
	t.Helper()
	h, err := New(t.Context(), b, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func TestWait(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		act  func(*notifier) // after the wait has begun
		want driver.State
		err  error
	}{
		{"pushed", func(n *notifier) { n.stream <- []*driver.Record{n.set("id", driver.Success)} }, driver.Success, nil},
		{"a gap re-reads", func(n *notifier) { n.set("id", driver.Failure); n.stream <- nil }, driver.Failure, nil},
		{"an outage re-reads", func(n *notifier) { n.set("id", driver.Success); n.fail <- errors.New("away") }, driver.Success, nil},
		{"the caller's time is up", func(*notifier) {}, "", context.DeadlineExceeded},
		{"what was deleted is not found", func(n *notifier) { n.mu.Lock(); delete(n.records, "id"); n.mu.Unlock(); n.stream <- nil }, "", ErrNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNotifier()
				n.set("id", driver.Started)
				h := open(t, pushing{n}, Options{Sweep: -1})
				go func() {
					synctest.Wait()
					tt.act(n)
				}()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				r, err := h.Wait(ctx, "id")
				if !errors.Is(err, tt.err) || r != nil && r.State != tt.want {
					t.Errorf("got %+v, %v; want %s, %v", r, err, tt.want, tt.err)
				}
			})
		})
	}
}

func TestNoWakeUpIsLostBetweenWatchAndRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNotifier()
		n.set("id", driver.Started)
		n.onGet = func() { // ends while the record is being read as STARTED
			n.onGet = nil
			done := driver.Record{}
			done.ID, done.State = "id", driver.Success
			n.stream <- []*driver.Record{&done}
			synctest.Wait()
		}
		h := open(t, pushing{n}, Options{Sweep: -1})
		if r, err := h.Wait(t.Context(), "id"); err != nil || r.State != driver.Success {
			t.Errorf("got %+v, %v", r, err)
		}
	})
}

func TestUnknownAndAlive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNotifier()
		h := open(t, pushing{n}, Options{Sweep: time.Second, Alive: func(id string) bool { return id == "late" }})
		if _, err := h.Wait(t.Context(), "none"); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
		time.AfterFunc(10*time.Second, func() { n.set("late", driver.Success) })
		if r, err := h.Wait(t.Context(), "late"); err != nil || r.State != driver.Success {
			t.Errorf("got %+v, %v: a record that is still being written was given up", r, err)
		}
	})
}

func TestPollsWhereNothingNotifies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &store{}
		s.set("id", driver.Pending)
		h := open(t, s, Options{})
		time.AfterFunc(time.Minute, func() { s.set("id", driver.Success) })
		if r, err := h.Wait(t.Context(), "id"); err != nil || r.State != driver.Success {
			t.Errorf("got %+v, %v", r, err)
		}
		if s.gets > 400 {
			t.Errorf("%d reads in a minute: polling must slow down while nothing ends", s.gets)
		}
		before := s.gets
		time.Sleep(time.Hour)
		if s.gets != before {
			t.Error("polls although nobody waits")
		}
	})
}

func TestCloseEndsWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNotifier()
		n.set("id", driver.Started)
		h, err := New(t.Context(), pushing{n}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			synctest.Wait()
			h.Close()
		}()
		if _, err := h.Wait(t.Context(), "id"); !errors.Is(err, driver.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}

func TestAReadThatOutlivesItsCallerIsNotTouched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		s := &store{}
		s.set("id", driver.Success)
		s.onGet = func() { <-hold }
		h := open(t, s, Options{})
		go h.Get(t.Context(), "first") // the next one queues behind it
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error)
		go func() {
			r, err := h.Get(ctx, "id")
			if err != nil && r != nil {
				t.Errorf("got %+v and %v", r, err)
			}
			got <- err
		}()
		synctest.Wait()
		cancel()
		close(hold) // the read and the caller's end race: -race tells
		if err := <-got; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}
