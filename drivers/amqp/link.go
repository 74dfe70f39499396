package amqp

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/chicory-go/chicory/driver"
)

const (
	firstPause = 100 * time.Millisecond // before connecting again
	longPause  = 3 * time.Second
)

// A link keeps a connection: when a session ends, it opens the next one, for ever.
type link struct {
	what   string
	dialer *dialer
	log    *slog.Logger
	cancel context.CancelFunc
	work   sync.WaitGroup
	rude   atomic.Bool // end without a goodbye

	mu      sync.Mutex
	current *session
	changed chan struct{} // closed when current changes
	closed  bool
}

func newLink(what string, d *dialer, log *slog.Logger) *link {
	return &link{what: what, dialer: d, log: log, changed: make(chan struct{})}
}

// open opens the first session, and has later ones opened.
func (l *link) open(ctx context.Context) error {
	s, err := l.dialer.dial(ctx, l.what)
	if err != nil {
		return err
	}
	l.set(s)
	keeping, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.work.Go(func() { l.keep(keeping, s) })
	return nil
}

func (l *link) set(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = s
	close(l.changed)
	l.changed = make(chan struct{})
}

// keep opens a session whenever the last one has ended.
func (l *link) keep(ctx context.Context, s *session) {
	for {
		select {
		case <-ctx.Done():
			s.end(!l.rude.Load())
			return
		case <-s.done:
		}
		l.set(nil)
		s.end(false)
		l.log.Warn("amqp: connection lost", "connection", l.what)
		if s = l.again(ctx); s == nil {
			return
		}
		l.log.Info("amqp: connected again", "connection", l.what)
		l.set(s)
	}
}

// again connects; nil says that ctx has ended.
func (l *link) again(ctx context.Context) *session {
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		t := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
		s, err := l.dialer.dial(ctx, l.what)
		if err == nil {
			return s
		}
		l.log.Warn("amqp: not connected", "connection", l.what, "error", err)
	}
}

// session returns the session that lives, which it waits for within ctx.
func (l *link) session(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		s, changed, closed := l.current, l.changed, l.closed
		l.mu.Unlock()
		switch {
		case closed:
			return nil, driver.ErrClosed
		case s != nil && s.alive():
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, notConnected(ctx)
		}
	}
}

// takes reports whether the server takes messages now.
func (l *link) takes() bool {
	l.mu.Lock()
	s := l.current
	l.mu.Unlock()
	return s != nil && s.alive() && !s.isBlocked()
}

func notConnected(ctx context.Context) error {
	return driver.Transient(fmt.Errorf("amqp: not connected: %w", ctx.Err()))
}

// close ends the link.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	if l.cancel == nil {
		return // it never opened
	}
	l.cancel()
	l.work.Wait()
	l.set(nil)
}
