package redis

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/wire"
)

const (
	backlog      = 1 << 14 // records that a stream holds for a reader that is slow
	watchingTTL  = time.Minute
	watchingKeep = watchingTTL / 3
)

// notifications are one reader's stream of terminal records.
type notifications struct {
	backend *Backend
	wake    chan struct{} // capacity 1: look again
	ended   chan struct{}

	mu      sync.Mutex
	closed  bool
	gap     bool
	records []*driver.Record
	large   []string       // ids whose records were too large to be told
	ids     map[string]int // that are watched, and by how many calls of Watch
	marked  time.Time      // when the server was told that somebody watches
}

// Notify implements [driver.Notifier].
func (b *Backend) Notify(ctx context.Context) (driver.Notifications, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	n := &notifications{backend: b, wake: make(chan struct{}, 1), ended: make(chan struct{}), ids: map[string]int{}}
	h := b.conn.hub
	h.mu.Lock()
	h.streams[n] = struct{}{}
	h.mu.Unlock()
	return n, nil
}

// Address implements [driver.Notifications]. It is the last part of the channel.
func (n *notifications) Address() string { return n.backend.conn.nonce }

func (c *conn) watchChannel(id string) string { return c.prefix + ":n:" + id }

// Watch implements [driver.Notifications].
func (n *notifications) Watch(ctx context.Context, ids []string) error {
	b := n.backend
	if err := b.check(ctx); err != nil {
		return err
	}
	if !n.note(ids) {
		return driver.ErrClosed
	}
	fail := func(err error) error {
		n.forget(ids)
		return err
	}
	if err := n.mark(ctx); err != nil {
		return fail(err)
	}
	return b.conn.hub.watch(ctx, n, ids, fail)
}

func (n *notifications) note(ids []string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	for _, id := range ids {
		n.ids[id]++
	}
	return true
}

// forget undoes note, and gives up what no other call watches.
func (n *notifications) forget(ids []string) {
	var idle []string
	n.mu.Lock()
	for _, id := range ids {
		if n.ids[id]--; n.ids[id] <= 0 {
			delete(n.ids, id)
			idle = append(idle, id)
		}
	}
	n.mu.Unlock()
	n.backend.conn.hub.unwatch(n, idle)
}

// mark has the server tell of records that nobody asked to be told of with
// their ReplyTo, for as long as somebody watches.
func (n *notifications) mark(ctx context.Context) error {
	n.mu.Lock()
	fresh := time.Since(n.marked) < watchingKeep
	n.mu.Unlock()
	b := n.backend
	if fresh || b.conn.cluster { // there it is told of all
		return nil
	}
	if err := b.conn.rdb.Set(ctx, b.conn.shared()+":watching", 1, watchingTTL).Err(); err != nil {
		return b.readError(ctx, err)
	}
	n.mu.Lock()
	n.marked = time.Now()
	n.mu.Unlock()
	return nil
}

// watch subscribes to the channels of ids, and waits until all are.
func (h *hub) watch(ctx context.Context, n *notifications, ids []string, fail func(error) error) error {
	wait, err := h.listenTo(ctx, n, ids)
	if err != nil {
		return fail(n.backend.readError(ctx, err))
	}
	for _, w := range wait {
		select {
		case <-w.active:
		case <-n.backend.done:
			return fail(driver.ErrClosed)
		case <-ctx.Done():
			return fail(driver.Transient(ctx.Err()))
		}
	}
	return nil
}

// listenTo asks for the channels of ids that nobody has asked for yet.
func (h *hub) listenTo(ctx context.Context, n *notifications, ids []string) ([]*watching, error) {
	h.order.Lock()
	defer h.order.Unlock()
	var fresh []string
	wait := make([]*watching, 0, len(ids))
	h.mu.Lock()
	for _, id := range ids {
		channel := h.conn.watchChannel(id)
		w := h.watched[channel]
		if w == nil {
			w = &watching{streams: map[*notifications]struct{}{}, active: make(chan struct{})}
			h.watched[channel] = w
			fresh = append(fresh, channel)
		}
		w.streams[n] = struct{}{}
		wait = append(wait, w)
	}
	h.mu.Unlock()
	if len(fresh) == 0 {
		return wait, nil
	}
	return wait, h.current().Subscribe(context.WithoutCancel(ctx), fresh...)
}

// unwatch takes ids back. It does not wait for the server.
func (h *hub) unwatch(n *notifications, ids []string) {
	var idle []string
	h.mu.Lock()
	for _, id := range ids {
		channel := h.conn.watchChannel(id)
		w := h.watched[channel]
		if w == nil {
			continue
		}
		if delete(w.streams, n); len(w.streams) == 0 {
			delete(h.watched, channel)
			idle = append(idle, channel)
		}
	}
	h.mu.Unlock()
	if len(idle) > 0 {
		go h.ignore(idle)
	}
}

// ignore gives up channels, but for those that somebody listens to again.
func (h *hub) ignore(channels []string) {
	h.order.Lock()
	defer h.order.Unlock()
	h.mu.Lock()
	channels = slices.DeleteFunc(channels, func(channel string) bool { return h.watched[channel] != nil })
	closed := h.closed
	h.mu.Unlock()
	if len(channels) > 0 && !closed {
		h.current().Unsubscribe(context.Background(), channels...)
	}
}

// Unwatch implements [driver.Notifications].
func (n *notifications) Unwatch(ids []string) {
	n.mu.Lock()
	for _, id := range ids {
		delete(n.ids, id)
	}
	n.mu.Unlock()
	n.backend.conn.hub.unwatch(n, ids)
}

// finished passes terminal records on.
func (h *hub) finished(channel, payload string) {
	rs, large := decodePush([]byte(payload))
	h.mu.Lock()
	defer h.mu.Unlock()
	if w := h.watched[channel]; w != nil {
		for n := range w.streams {
			n.push(rs, large)
		}
		return
	}
	for n := range h.streams {
		n.push(rs, large)
	}
}

// decodePush returns the records of a push, see lua/record.lua, and the IDs of those that
// are to be read: they are large, or damaged, of which reading tells.
func decodePush(b []byte) (rs []*driver.Record, large []string) {
	d := wire.Decoder{B: b}
	for len(d.B) > 0 {
		id := short(&d)
		var blob []byte
		if n := d.Take(4); n != nil {
			blob = bytes.Clone(d.Take(uint64(binary.BigEndian.Uint32(n)))) // each record is kept by itself
		}
		if d.Err != nil {
			break
		}
		if r, err := decodeRecord(id, blob); err == nil && r != nil {
			rs = append(rs, r)
		} else {
			large = append(large, id)
		}
	}
	return rs, large
}

// push never blocks.
func (n *notifications) push(rs []*driver.Record, large []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return
	case len(n.records)+len(n.large) >= backlog:
		n.records, n.large, n.gap = nil, nil, true
	default:
		n.records, n.large = append(n.records, rs...), append(n.large, large...)
	}
	signal(n.wake)
}

// miss says that something may have been missed.
func (n *notifications) miss() {
	n.mu.Lock()
	n.gap = true
	n.mu.Unlock()
	signal(n.wake)
}

// Next implements [driver.Notifications].
func (n *notifications) Next(ctx context.Context) ([]*driver.Record, error) {
	for {
		if err := n.backend.check(ctx); err != nil {
			return nil, err
		}
		rs, large, gap, closed := n.take()
		if closed {
			return nil, driver.ErrClosed
		}
		if gap { // the server may have lost what was said to it
			n.remark(ctx, true)
			return nil, nil
		}
		if len(large) > 0 {
			more, err := n.backend.Get(ctx, large)
			if err != nil {
				return nil, nil // everything is read again
			}
			for _, r := range more {
				if r != nil && r.State.Terminal() {
					rs = append(rs, r)
				}
			}
		}
		if len(rs) > 0 {
			return rs, nil
		}
		n.remark(ctx, false)
		keep := time.NewTimer(watchingKeep)
		select {
		case <-n.wake:
		case <-keep.C:
		case <-n.ended:
		case <-n.backend.done:
		case <-ctx.Done():
		}
		keep.Stop()
	}
}

// remark has the server go on telling, if anything is watched. If it has lost all,
// it is to be told anew.
func (n *notifications) remark(ctx context.Context, lost bool) {
	n.mu.Lock()
	if lost {
		n.marked = time.Time{}
	}
	watches := len(n.ids) > 0
	n.mu.Unlock()
	if watches {
		n.mark(ctx) // if it fails, the gap of the outage has it all read again
	}
}

func (n *notifications) take() (rs []*driver.Record, large []string, gap, closed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	rs, large, gap, closed = n.records, n.large, n.gap, n.closed
	if gap {
		n.gap = false
		if len(rs) > 0 || len(large) > 0 {
			signal(n.wake)
		}
		return nil, nil, true, closed
	}
	n.records, n.large = nil, nil
	return rs, large, false, closed
}

// Close implements [driver.Notifications].
func (n *notifications) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	ids := make([]string, 0, len(n.ids))
	for id := range n.ids {
		ids = append(ids, id)
	}
	n.mu.Unlock()
	close(n.ended)
	h := n.backend.conn.hub
	h.mu.Lock()
	delete(h.streams, n)
	h.mu.Unlock()
	h.unwatch(n, ids)
	return nil
}
