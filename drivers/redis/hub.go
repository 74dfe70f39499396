package redis

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/redis/go-redis/v9"
)

const (
	pingEvery   = 15 * time.Second
	retryEvery  = 100 * time.Millisecond
	relistEvery = time.Minute
)

// A hub hears what the server tells this process, on one connection: that a
// subscription may find something, that a task has ended, that a control key
// has changed. What it missed while the connection was away counts as a gap.
type hub struct {
	conn    *conn
	channel string
	pubsub  *redis.PubSub
	ended   chan struct{}

	order sync.Mutex // of subscribing and unsubscribing

	mu      sync.Mutex
	closed  bool
	joined  bool                        // the channel was confirmed
	refused error                       // why it never will be
	first   chan struct{}               // closed then
	waiters map[string]chan struct{}    // by token
	streams map[*notifications]struct{} // of this process
	watched map[string]*watching        // by channel
	changes map[*change]struct{}        // that are waited for
	relists time.Time                   // when queues are to be listed anew
}

// A change is one of a control key under a prefix, that somebody waits for.
type change struct {
	prefix   string
	happened chan struct{} // closed then
}

// A watching is a channel that some streams listen to.
type watching struct {
	streams map[*notifications]struct{}
	active  chan struct{} // closed once the server has confirmed it
	done    bool
}

func newHub(ctx context.Context, c *conn) (*hub, error) {
	h := &hub{conn: c, channel: c.prefix + ":ch:" + c.nonce, ended: make(chan struct{}), first: make(chan struct{}),
		waiters: map[string]chan struct{}{}, streams: map[*notifications]struct{}{}, watched: map[string]*watching{},
		changes: map[*change]struct{}{}}
	h.pubsub = c.rdb.Subscribe(context.Background(), h.channels()...)
	go h.listen()
	var err error
	select {
	case <-h.first:
		err = h.refused
	case <-ctx.Done():
		err = driver.Transient(ctx.Err())
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// channels are those that h listens to. h.mu is held, or h is not in use yet.
func (h *hub) channels() []string {
	return slices.AppendSeq([]string{h.channel, h.conn.shared() + ":cc"}, maps.Keys(h.watched))
}

func (h *hub) close() {
	h.mu.Lock()
	h.closed = true
	pubsub := h.pubsub
	h.mu.Unlock()
	pubsub.Close()
	<-h.ended
}

func (h *hub) isClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

func (h *hub) listen() {
	defer close(h.ended)
	pinged := false // and nothing was heard since
	for {
		h.relist(time.Now())
		msg, err := h.current().ReceiveTimeout(context.Background(), pingEvery)
		if h.isClosed() {
			return
		}
		var timeout net.Error
		var refusal redis.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout() && pinged:
			pinged = false
			h.renew()
		case errors.As(err, &timeout) && timeout.Timeout():
			pinged = true
			h.current().Ping(context.Background()) // if that fails, the next Receive connects anew
		case errors.As(err, &refusal):
			h.refuse(h.conn.classify(err))
			time.Sleep(retryEvery)
		case err != nil:
			time.Sleep(retryEvery)
		default:
			pinged = false
			h.hear(msg)
		}
	}
}

// relist now and then has queues listed anew when they are published to, for somebody
// may have removed everything.
func (h *hub) relist(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.After(h.relists) {
		h.relists = now.Add(relistEvery)
		h.conn.listed.Clear()
	}
}

func (h *hub) current() *redis.PubSub {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pubsub
}

// renew leaves a connection on which nothing comes any more, and takes another
// one.
func (h *hub) renew() {
	h.order.Lock()
	defer h.order.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.pubsub.Close()
		h.pubsub = h.conn.rdb.Subscribe(context.Background(), h.channels()...)
	}
}

// refuse notes that the server does not let h listen.
func (h *hub) refuse(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.joined && h.refused == nil {
		h.refused = err
		close(h.first)
	}
}

func (h *hub) hear(msg any) {
	switch m := msg.(type) {
	case *redis.Subscription:
		if m.Kind == "subscribe" {
			h.confirm(m.Channel)
		}
	case *redis.Message:
		switch {
		case m.Channel == h.conn.shared()+":cc":
			h.change(m.Payload)
		case strings.HasPrefix(m.Payload, "w"):
			h.wake(m.Payload[1:])
		case strings.HasPrefix(m.Payload, "r"):
			h.finished(m.Channel, m.Payload[1:])
		}
	}
}

// confirm notes that a channel is subscribed to: the second time, that there
// was a gap.
func (h *hub) confirm(channel string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.watched[channel]; w != nil && !w.done {
		w.done = true
		close(w.active)
	}
	if channel != h.channel {
		return
	}
	if !h.joined {
		if h.joined = true; h.refused == nil {
			close(h.first)
		}
		return
	}
	h.conn.listed.Clear() // it may be another server, or an empty one
	for _, c := range h.waiters {
		signal(c)
	}
	for n := range h.streams {
		n.miss()
	}
	for c := range h.changes {
		h.tell(c)
	}
}

// wake wakes who waits under token. Where that is gone, others look, for nobody else was
// told.
func (h *hub) wake(token string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.waiters[token]; c != nil {
		signal(c)
		return
	}
	for _, c := range h.waiters {
		signal(c)
	}
}

// change tells those who wait for a control key.
func (h *hub) change(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.changes {
		if strings.HasPrefix(key, c.prefix) {
			h.tell(c)
		}
	}
}

// tell says that c has happened. h.mu is held.
func (h *hub) tell(c *change) {
	close(c.happened)
	delete(h.changes, c)
}

// nextChange returns the next change of a control key under prefix, or the next gap.
// It is to be dropped.
func (h *hub) nextChange(prefix string) *change {
	c := &change{prefix, make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes[c] = struct{}{}
	return c
}

// drop has nobody wait for c any more.
func (h *hub) drop(c *change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.changes, c)
}

// join has c signalled when token is woken.
func (h *hub) join(token string, c chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiters[token] = c
}

func (h *hub) part(token string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.waiters, token)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
