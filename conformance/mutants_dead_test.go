package conformance_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var deadMutants = []mutant{
	// Dead letters
	{"a dead letter loses its history", "Broker/Dead/Fields", deadField(func(d *driver.DeadInfo) { d.History = nil })},
	{"a dead letter loses the worker", "Broker/Dead/Fields", deadField(func(d *driver.DeadInfo) { d.Worker = "" })},
	{"a dead letter loses its first failure", "Broker/Dead/Fields", deadField(func(d *driver.DeadInfo) { d.FirstAt = d.LastAt })},
	{"a dead letter loses its priority", "Broker/Dead/Fields", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		return b.Broker.Publish(ctx, changed(ms, func(m *driver.Message) {
			if m.Dead != nil && m.Once {
				m.Priority = 0
			}
		}))
	}}},
	{"Get of an unknown id is an error", "Broker/Dead/Fields", deadMutant(func(b *broken, l *brokenDead) {
		l.get = func(ctx context.Context, id string) ([]*driver.Message, error) {
			ms, err := l.DeadLetters.Get(ctx, id)
			if len(ms) == 0 && err == nil && l.queue == "q" {
				err = errors.New("not found")
			}
			return ms, err
		}
	})},
	{"hands out dead letters", "Broker/Dead/NotDelivered", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) == 3 && ms[0].Dead != nil {
			live := ms[0].Clone()
			live.Dead, live.Epoch = nil, 9
			b.Broker.Publish(ctx, []*driver.Message{live})
		}
		return b.Broker.Publish(ctx, ms)
	}}},
	{"List removes what it returns", "Broker/Dead/ReadOnly", deadMutant(func(b *broken, l *brokenDead) {
		l.list = func(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error) {
			ms, next, err := l.DeadLetters.List(ctx, cursor, limit)
			if len(ms) == 5 {
				l.DeadLetters.Delete(ctx, []driver.DeadKey{ms[4].Key()})
			}
			return ms, next, err
		}
	})},
	{"List ignores its limit", "Broker/Dead/Paging", deadMutant(func(b *broken, l *brokenDead) {
		l.list = func(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error) {
			return l.DeadLetters.List(ctx, cursor, max(limit, 100))
		}
	})},
	{"List ends after a hundred", "Broker/Dead/Paging", deadMutant(func(b *broken, l *brokenDead) {
		pages := 0
		l.list = func(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error) {
			ms, next, err := l.DeadLetters.List(ctx, cursor, limit)
			if pages++; pages == 10 && limit == 10 || limit == 10 && len(cursor) > 0 && len(ms) > 0 && ms[0].ID == "task-101" {
				next = ""
			}
			return ms, next, err
		}
	})},
	{"lists the newest first", "Broker/Dead/Paging", deadMutant(func(b *broken, l *brokenDead) {
		l.list = func(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error) {
			ms, next, err := l.DeadLetters.List(ctx, cursor, limit)
			if limit == 10 {
				slices.Reverse(ms)
			}
			return ms, next, err
		}
	})},
	{"a dead letter that is there is a duplicate", "Broker/Dead/Idempotent", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) == 1 && ms[0].Dead != nil {
			if got, _ := b.Broker.DeadLetters(ms[0].Queue).Get(ctx, ms[0].ID); len(got) == 1 && got[0].Epoch == ms[0].Epoch {
				return driver.ErrDuplicate
			}
		}
		return b.Broker.Publish(ctx, ms)
	}}},
	{"Get returns the oldest epoch first", "Broker/Dead/Epochs", deadMutant(func(b *broken, l *brokenDead) {
		l.get = func(ctx context.Context, id string) ([]*driver.Message, error) {
			ms, err := l.DeadLetters.Get(ctx, id)
			slices.Reverse(ms)
			return ms, err
		}
	})},
	{"a replay keeps its attempts", "Broker/Dead/Replay", replayed(func(m *driver.Message) { m.Attempt = 3 })},
	{"a replay keeps its deadline", "Broker/Dead/Replay", replayed(func(m *driver.Message) { m.Deadline = 1 << 50 })},
	{"a replay returns what was dead", "Broker/Dead/Replay", deadMutant(func(b *broken, l *brokenDead) {
		l.replay = func(ctx context.Context, keys []driver.DeadKey) ([]*driver.Message, error) {
			ms, err := l.DeadLetters.Replay(ctx, keys)
			for _, m := range ms {
				if m.Priority == 6 {
					m.Epoch--
				}
			}
			return ms, err
		}
	})},
	{"a replay ignores the epoch", "Broker/Dead/ReplayKey", deadMutant(func(b *broken, l *brokenDead) {
		l.replay = func(ctx context.Context, keys []driver.DeadKey) (out []*driver.Message, err error) {
			keys = slices.Clone(keys)
			for i, k := range keys {
				if got, _ := l.DeadLetters.Get(ctx, k.ID); len(got) == 1 && l.queue == "q" && len(keys) == 3 {
					keys[i].Epoch = got[0].Epoch
				}
			}
			return l.DeadLetters.Replay(ctx, keys)
		}
	})},
	{"two replayers both move", "Broker/Dead/TwoReplayers", deadMutant(func(b *broken, l *brokenDead) {
		l.replay = func(ctx context.Context, keys []driver.DeadKey) ([]*driver.Message, error) {
			var read []*driver.Message
			if len(keys) >= 5 && len(keys) <= 10 {
				for _, k := range keys {
					ms, _ := l.DeadLetters.Get(ctx, k.ID)
					read = append(read, ms...)
				}
				time.Sleep(time.Microsecond)
				l.DeadLetters.Replay(ctx, keys)
				for i := range read {
					read[i] = read[i].Replayed()
				}
				return read, nil
			}
			return l.DeadLetters.Replay(ctx, keys)
		}
	})},
	{"Delete ignores the epoch", "Broker/Dead/Delete", deadMutant(func(b *broken, l *brokenDead) {
		l.del = func(ctx context.Context, keys []driver.DeadKey) (int, error) {
			n, err := l.DeadLetters.Delete(ctx, keys)
			for _, k := range keys {
				l.DeadLetters.Delete(ctx, []driver.DeadKey{{ID: k.ID, Epoch: k.Epoch + 1}})
			}
			return n, err
		}
	})},
	{"Delete counts the keys", "Broker/Dead/Delete", deadMutant(func(b *broken, l *brokenDead) {
		l.del = func(ctx context.Context, keys []driver.DeadKey) (int, error) {
			_, err := l.DeadLetters.Delete(ctx, keys)
			return len(keys), err
		}
	})},
	{"Purge removes all", "Broker/Dead/Purge", deadMutant(func(b *broken, l *brokenDead) {
		l.purge = func(ctx context.Context, t time.Time) (int, error) { return l.DeadLetters.Purge(ctx, time.Time{}) }
	})},
	{"Purge takes one that died at the moment", "Broker/Dead/Purge", deadMutant(func(b *broken, l *brokenDead) {
		l.purge = func(ctx context.Context, t time.Time) (int, error) {
			if !t.IsZero() {
				t = t.Add(time.Millisecond)
			}
			return l.DeadLetters.Purge(ctx, t)
		}
	})},
	{"Len stops at a hundred", "Broker/Dead/Len", deadMutant(func(b *broken, l *brokenDead) {
		l.size = func(ctx context.Context) (int, error) { n, err := l.DeadLetters.Len(ctx); return min(n, 100), err }
	})},
	{"queues share their dead letters", "Broker/Dead/Queues", mutation{dead: func(b *broken, l driver.DeadLetters, queue string) driver.DeadLetters {
		if queue == "z" {
			return b.Broker.DeadLetters("a")
		}
		return l
	}}},
	{"a replayed task cannot die again", "Broker/Dead/AgainAfterReplay", settling(func(one *driver.Settlement) {
		one.Then = slices.DeleteFunc(slices.Clone(one.Then), func(m *driver.Message) bool { return m.Dead != nil && m.Epoch > 1 })
	})},
	{"dead letters expire after an hour", "Broker/Dead/NoExpiry", deadMutant(func(b *broken, l *brokenDead) {
		l.list = func(ctx context.Context, cursor string, limit int) ([]*driver.Message, string, error) {
			b.shared.mu.Lock()
			first, ok := b.shared.any["opened"].(time.Time)
			b.shared.mu.Unlock()
			if ok && time.Since(first) > time.Hour {
				return nil, "", nil
			}
			return l.DeadLetters.List(ctx, cursor, limit)
		}
	}).opened()},

	// At-most-once
	{"a redelivery of at-most-once does not count", "Broker/Once/Counted", received(func(_ *brokenSub, d *driver.Delivery) {
		if d.Once && d.NoRecord {
			d.Count = 1 + int(d.Deliveries)
		}
	})},
	{"a give-back of at-most-once counts", "Broker/Once/GivenBack", mutation{
		settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
			for i := range ss {
				if d := ss[i].Delivery; isRelease(&ss[i]) && d.NoRecord && d.Deliveries == 0 && d.Epoch == 0 {
					s.b.shared.mu.Lock()
					s.b.shared.any["once "+d.ID] = true
					s.b.shared.mu.Unlock()
				}
			}
			return s.Subscription.Settle(ctx, ss)
		},
		receive: received(func(s *brokenSub, d *driver.Delivery) {
			s.b.shared.mu.Lock()
			defer s.b.shared.mu.Unlock()
			if s.b.shared.any["once "+d.ID] != nil {
				d.Count++
			}
		}).receive}},

	// Life
	{"Info changes", "Broker/Life/Info", mutation{info: func(i driver.BrokerInfo) driver.BrokerInfo {
		i.Name = fmt.Sprint(i.Name, time.Now().UnixNano())
		infoCount++
		i.Contract = 1 + int(infoCount%2)
		return i
	}}},
	{"has no name", "Broker/Life/Info", info(func(i *driver.BrokerInfo) { i.Name = "" })},
	{"is written for a contract to come", "Broker/Life/Info", info(func(i *driver.BrokerInfo) { i.Contract = driver.Contract + 1 })},
	{"publishes after Close", "Broker/Life/Closed", mutation{
		close: func(b *broken, ctx context.Context) error {
			b.shared.mu.Lock()
			b.shared.any[fmt.Sprintf("closed %p", b)] = true
			b.shared.mu.Unlock()
			return b.Broker.Close(ctx)
		},
		publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
			b.shared.mu.Lock()
			closed := b.shared.any[fmt.Sprintf("closed %p", b)] != nil
			b.shared.mu.Unlock()
			if closed {
				return nil
			}
			return b.Broker.Publish(ctx, ms)
		}}},
	{"dead letters can be read after Close", "Broker/Life/Closed", deadMutant(func(b *broken, l *brokenDead) {
		l.size = func(ctx context.Context) (int, error) {
			n, err := l.DeadLetters.Len(ctx)
			if errors.Is(err, driver.ErrClosed) {
				return 0, nil
			}
			return n, err
		}
	})},
	{"Stop does not end Receive", "Broker/Life/CloseEndsReceive", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx, max)
		if errors.Is(err, driver.ErrClosed) && max == 1 && s.n == 0 && len(s.o.Queues) == 1 && s.o.Worker == "worker" {
			s.n++
			if _, bounded := ctx.Deadline(); !bounded {
				<-ctx.Done()
				return nil, ctx.Err()
			}
		}
		return ds, err
	}}},
	{"closing twice panics", "Broker/Life/CloseTwice", mutation{stop: func(s *brokenSub, ctx context.Context) error {
		if s.n == -7 {
			panic("closed twice")
		}
		s.n = -7
		return s.Subscription.Stop(ctx)
	}}},
	{"closing one subscription closes its sisters", "Broker/Life/Others", mutation{
		subscribe: func(b *broken, ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
			s, err := b.Broker.Subscribe(ctx, o)
			if err == nil {
				b.shared.mu.Lock()
				key := fmt.Sprintf("sisters %p", b)
				sisters, _ := b.shared.any[key].([]driver.Subscription)
				b.shared.any[key] = append(sisters, s)
				b.shared.mu.Unlock()
			}
			return s, err
		},
		closeSub: func(s *brokenSub, ctx context.Context) error {
			s.b.shared.mu.Lock()
			sisters, _ := s.b.shared.any[fmt.Sprintf("sisters %p", s.b)].([]driver.Subscription)
			s.b.shared.mu.Unlock()
			for _, sister := range sisters {
				sister.Close(ctx)
			}
			return nil
		}}},
	{"Stop keeps what was prefetched", "Broker/Life/Stop", mutation{
		receive: prefetching().receive,
		setQueues: func(s *brokenSub, ctx context.Context, qs []driver.QueueSpec) error {
			s.giveBack(ctx)
			return s.Subscription.SetQueues(ctx, qs)
		}}},
	{"a message that arrives while it stops is lost", "Broker/Life/StopRace", mutation{
		receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
			ds, err := s.Subscription.Receive(ctx, max)
			if len(ds) > 0 && max == 2 && s.b.shared.stopping(s) {
				return nil, driver.ErrClosed
			}
			return ds, err
		},
		stop: func(s *brokenSub, ctx context.Context) error {
			s.b.shared.mu.Lock()
			s.b.shared.any[fmt.Sprintf("stopping %p", s)] = true
			s.b.shared.mu.Unlock()
			time.Sleep(time.Microsecond)
			return s.Subscription.Stop(ctx)
		}}},
	{"a subscription ends with its first context", "Broker/Life/Contexts", mutation{subscribe: func(b *broken, ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
		s, err := b.Broker.Subscribe(ctx, o)
		if err == nil {
			context.AfterFunc(ctx, func() { s.Stop(context.Background()) })
		}
		return s, err
	}}},
	{"subscribes under a context that has ended", "Broker/Life/Contexts", mutation{subscribe: func(b *broken, ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
		return b.Broker.Subscribe(context.WithoutCancel(ctx), o)
	}}},
	{"leaks a goroutine", "Broker/Life/CloseTwice", mutation{open: func(b *broken) { go func() { select {} }() }}},
	{"cannot take all methods at once", "Broker/Life/Everything", mutation{setQueues: func(s *brokenSub, ctx context.Context, qs []driver.QueueSpec) error {
		if len(qs) == 2 && strings.HasPrefix(qs[1].Name, "extra-7") {
			return errors.New("busy")
		}
		return s.Subscription.SetQueues(ctx, qs)
	}}},
	{"says it is durable", "Broker/Life/Restart", info(func(i *driver.BrokerInfo) { i.Durable = true })},
}

var infoCount int64

func (s *shared) stopping(sub *brokenSub) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.any[fmt.Sprintf("stopping %p", sub)] != nil
}

// credit counts what a subscription may still receive.
func (s *brokenSub) credit(n int) int {
	s.b.shared.mu.Lock()
	defer s.b.shared.mu.Unlock()
	s.n += n
	return s.o.Prefetch + s.n
}

// giveBack gives back what a prefetching mutant holds.
func (s *brokenSub) giveBack(ctx context.Context) {
	sh := s.b.shared
	sh.mu.Lock()
	key := fmt.Sprintf("%p", s)
	held, _ := sh.any[key].([]*driver.Delivery)
	delete(sh.any, key)
	sh.mu.Unlock()
	for _, d := range held {
		s.Subscription.Settle(ctx, []driver.Settlement{{Delivery: d, Action: driver.Release}})
	}
}

// opened notes when the store was opened.
func (m mutation) opened() mutation {
	m.open = func(b *broken) {
		b.shared.mu.Lock()
		defer b.shared.mu.Unlock()
		if b.shared.any["opened"] == nil {
			b.shared.any["opened"] = time.Now()
		}
	}
	return m
}

// deadField publishes dead letters that f has changed.
func deadField(f func(d *driver.DeadInfo)) mutation {
	return mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		return b.Broker.Publish(ctx, changed(ms, func(m *driver.Message) {
			if m.Dead != nil {
				c := *m.Dead
				f(&c)
				m.Dead = &c
			}
		}))
	}}
}

// replayed hands out replays that f has changed.
func replayed(f func(m *driver.Message)) mutation {
	return received(func(_ *brokenSub, d *driver.Delivery) {
		if d.Epoch == 3 && d.Seq == 0 {
			f(&d.Message)
		}
	})
}
