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

// delayed publishes with delays that f has changed, everywhere.
func delayed(f func(d time.Duration) time.Duration) mutation {
	return lossy(func(m *driver.Message) {
		if m.Delay > 0 {
			m.Delay = f(m.Delay)
		}
	})
}

func isRelease(s *driver.Settlement) bool { return s.Action == driver.Release }

var settleMutants = []mutant{
	{"ack does nothing", "Broker/Settle/Ack", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error { return ctx.Err() }}},
	{"an acknowledged message comes back after three leases", "Broker/Settle/Ack", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		err := s.Subscription.Settle(ctx, ss)
		if err == nil && len(ss) == 3 && ss[0].Action == driver.Ack && ss[2].Action == driver.Ack && ss[1].Then == nil {
			m := ss[0].Delivery.Message.Clone()
			m.Delay = 80 * time.Second
			s.b.Broker.Publish(ctx, []*driver.Message{m})
		}
		return err
	}}},
	{"a release waits for the lease", "Broker/Settle/Release", settling(func(one *driver.Settlement) {
		if isRelease(one) && one.Delay == 0 && one.Delivery.ReplyTo != "" {
			one.Delay = 10 * time.Second
		}
	})},
	{"a release loses the reply address", "Broker/Settle/Release", mutation{
		settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
			for i := range ss {
				if isRelease(&ss[i]) {
					s.b.shared.mu.Lock()
					s.b.shared.any["released "+ss[i].Delivery.ID] = true
					s.b.shared.mu.Unlock()
				}
			}
			return s.Subscription.Settle(ctx, ss)
		},
		receive: received(func(s *brokenSub, d *driver.Delivery) {
			s.b.shared.mu.Lock()
			defer s.b.shared.mu.Unlock()
			if s.b.shared.any["released "+d.ID] != nil {
				d.ReplyTo = ""
			}
		}).receive}},
	{"a release ignores its delay", "Broker/Settle/ReleaseDelay", settling(func(one *driver.Settlement) {
		if isRelease(one) && one.Delay < time.Hour {
			one.Delay = 0
		}
	})},
	{"Then is forgotten", "Broker/Settle/Then", settling(func(one *driver.Settlement) { one.Then = nil })},
	{"Then goes to the queue of the settled message", "Broker/Settle/Then", settling(func(one *driver.Settlement) {
		one.Then = changed(one.Then, func(m *driver.Message) {
			if m.Dead == nil {
				m.Queue = one.Delivery.Queue
			}
		})
	})},
	{"Then ignores delays", "Broker/Settle/Then", settling(func(one *driver.Settlement) {
		one.Then = changed(one.Then, func(m *driver.Message) { m.Delay = 0 })
	})},
	{"a release forgets its Then", "Broker/Settle/Then", settling(func(one *driver.Settlement) {
		if isRelease(one) {
			one.Then = nil
		}
	})},
	{"the settled message's id is a duplicate in its own Then", "Broker/Settle/ThenSelf", settling(func(one *driver.Settlement) {
		one.Then = slices.DeleteFunc(slices.Clone(one.Then), func(m *driver.Message) bool { return m.ID == one.Delivery.ID && m.Dead == nil && m.Seq == 5 })
	})},
	{"a dead letter in Then loses its stack", "Broker/Settle/ThenDead", settling(func(one *driver.Settlement) {
		one.Then = changed(one.Then, func(m *driver.Message) {
			if m.Dead != nil {
				c := *m.Dead
				c.Stack = ""
				m.Dead = &c
			}
		})
	})},
	{"a Then that is alive is stored twice", "Broker/Settle/ThenAlive", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if len(ss) == 1 && len(ss[0].Then) == 1 && ss[0].Then[0].Dead == nil && ss[0].Record == nil {
			m := ss[0].Then[0]
			if err := s.b.Broker.Publish(ctx, []*driver.Message{m}); errors.Is(err, driver.ErrDuplicate) && m.ID == ss[0].Delivery.ID {
				twin := m.Clone()
				twin.Epoch++
				s.b.Broker.Publish(ctx, []*driver.Message{twin})
			}
		}
		return s.Subscription.Settle(ctx, ss)
	}}},
	{"a Then that is alive fails its settlement", "Broker/Settle/ThenAlive", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if len(ss) == 1 && len(ss[0].Then) == 1 && ss[0].Then[0].Dead == nil && ss[0].Record == nil && ss[0].Then[0].Seq == 1 {
			twin := ss[0].Then[0].Clone()
			if err := s.b.Broker.Publish(ctx, []*driver.Message{twin}); errors.Is(err, driver.ErrDuplicate) {
				return driver.ErrDuplicate
			}
		}
		return s.Subscription.Settle(ctx, ss)
	}}},
	{"an invalid Then is left out", "Broker/Settle/ThenInvalid", settling(func(one *driver.Settlement) {
		one.Then = slices.DeleteFunc(slices.Clone(one.Then), func(m *driver.Message) bool { return m.ID == "" || m.Queue == "" })
	})},
	{"an invalid Then fails the batch", "Broker/Settle/ThenInvalid", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		for i := range ss {
			for _, m := range ss[i].Then {
				if m.ID == "" {
					return errors.New("invalid")
				}
			}
		}
		return s.Subscription.Settle(ctx, ss)
	}}},
	{"settles the first hundred", "Broker/Settle/Batch", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if len(ss) < 200 {
			return s.Subscription.Settle(ctx, ss)
		}
		err := s.Subscription.Settle(ctx, ss[:100])
		errs := make([]error, len(ss))
		for i := range 100 {
			errs[i] = driver.ItemError(err, i, 100)
		}
		errs[130] = driver.ErrLeaseLost
		return driver.Batch(errs)
	}}},
	{"one lost delivery fails the whole batch", "Broker/Settle/Batch", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		err := s.Subscription.Settle(ctx, ss)
		if err != nil && len(ss) > 200 {
			return driver.ErrLeaseLost
		}
		return err
	}}},
	{"acknowledges before Then is stored", "Broker/Settle/Kill", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if len(ss) != 1 || len(ss[0].Then) != 1 || ss[0].Then[0].Dead != nil || ss[0].Record != nil || ss[0].Then[0].Seq != 1 || ss[0].Then[0].Queue != "q" {
			return s.Subscription.Settle(ctx, ss)
		}
		bare := ss[0]
		bare.Then = nil
		if err := s.Subscription.Settle(ctx, []driver.Settlement{bare}); err != nil {
			return err
		}
		time.Sleep(time.Microsecond)
		return s.b.Broker.Publish(ctx, ss[0].Then)
	}}},
	{"says atomic, and publishes first", "Broker/Settle/Kill", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if len(ss) != 1 || len(ss[0].Then) != 1 || ss[0].Then[0].Dead != nil || ss[0].Record != nil || ss[0].Then[0].Seq != 1 || ss[0].Then[0].Queue != "q" {
			return s.Subscription.Settle(ctx, ss)
		}
		if err := s.Subscription.Extend(ctx, []*driver.Delivery{ss[0].Delivery}); err != nil {
			return driver.ItemError(err, 0, 1)
		}
		if err := s.b.Broker.Publish(ctx, ss[0].Then); err != nil && !errors.Is(err, driver.ErrDuplicate) {
			return driver.ItemError(err, 0, 1)
		}
		time.Sleep(time.Microsecond)
		return s.Subscription.Settle(ctx, ss)
	}}},
	{"loses one of many concurrent settlements", "Broker/Settle/Concurrent", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		if len(ss) == 1 && len(ss[0].Then) == 1 && ss[0].Then[0].Queue == "next" {
			s.b.shared.mu.Lock()
			s.b.shared.count++
			lost := s.b.shared.count == 60
			s.b.shared.mu.Unlock()
			if lost {
				return nil
			}
		}
		return s.Subscription.Settle(ctx, ss)
	}}},
	{"Stop ends Settle", "Broker/Settle/AfterStop", mutation{
		stop: func(s *brokenSub, ctx context.Context) error { s.n = -1; return s.Subscription.Stop(ctx) },
		settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
			if s.n == -1 && len(ss) == 3 {
				return driver.ErrClosed
			}
			return s.Subscription.Settle(ctx, ss)
		}}},
	{"settles under a context that has ended", "Broker/Settle/Cancelled", mutation{settle: func(s *brokenSub, ctx context.Context, ss []driver.Settlement) error {
		return s.Subscription.Settle(context.WithoutCancel(ctx), ss)
	}}},
	{"extends under a context that has ended", "Broker/Settle/Cancelled", mutation{extend: func(s *brokenSub, ctx context.Context, ds []*driver.Delivery) error {
		return s.Subscription.Extend(context.WithoutCancel(ctx), ds)
	}}},

	// Delay
	{"delays are early by a millisecond", "Broker/Delay/OnTime", delayed(func(d time.Duration) time.Duration { return d - time.Millisecond })},
	{"delays are seconds", "Broker/Delay/OnTime", delayed(func(d time.Duration) time.Duration {
		if d < 100*time.Millisecond {
			return d.Round(time.Second)
		}
		return d
	})},
	{"delays are late by a tenth", "Broker/Delay/OnTime", delayed(func(d time.Duration) time.Duration { return d + d/10 })},
	{"a long delay blocks a shorter one", "Broker/Delay/NoBlocking", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		return b.Broker.Publish(ctx, changed(ms, func(m *driver.Message) {
			if len(ms) == 1 && m.Delay > 0 {
				b.shared.mu.Lock()
				defer b.shared.mu.Unlock()
				last, _ := b.shared.any["due"].(time.Time)
				due := time.Now().Add(m.Delay)
				if due.Before(last) {
					due = last
				}
				b.shared.any["due"], m.Delay = due, time.Until(due)
			}
		}))
	}}},
	{"a message that becomes due waits for the next publish", "Broker/Delay/Wakes", mutation{receive: func(s *brokenSub, ctx context.Context, max int) ([]*driver.Delivery, error) {
		ds, err := s.Subscription.Receive(ctx, max)
		if len(ds) == 1 && len(s.o.Queues) == 1 && s.n == 0 && time.Now().UnixNano()%int64(30*time.Second) == 0 {
			time.Sleep(time.Second)
		}
		s.n++
		return ds, err
	}}},
	{"one of many delays is a second late", "Broker/Delay/Many", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) == 150 {
			ms = changed(ms, func(m *driver.Message) {
				if m.ID == ms[70].ID && m.Delay > 0 {
					m.Delay += time.Second
				}
			})
		}
		return b.Broker.Publish(ctx, ms)
	}}},
	{"a delayed message to an unused queue is lost", "Broker/Delay/Virgin", mutation{
		subscribe: func(b *broken, ctx context.Context, o *driver.SubscribeOptions) (driver.Subscription, error) {
			b.shared.mu.Lock()
			for _, q := range o.Queues {
				b.shared.any["queue "+q.Name] = true
			}
			b.shared.mu.Unlock()
			return b.Broker.Subscribe(ctx, o)
		},
		publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
			b.shared.mu.Lock()
			ms = slices.DeleteFunc(slices.Clone(ms), func(m *driver.Message) bool {
				return m.Delay > 0 && m.Queue != "q" && b.shared.any["queue "+m.Queue] == nil
			})
			b.shared.mu.Unlock()
			return b.Broker.Publish(ctx, ms)
		}}},
	{"delays have 32 bits", "Broker/Delay/Long", delayed(func(d time.Duration) time.Duration {
		return time.Duration(uint32(d.Milliseconds())) * time.Millisecond
	})},
	{"delays end after 49 days", "Broker/Delay/Long", delayed(func(d time.Duration) time.Duration { return min(d, 49*24*time.Hour) })},
	{"moves 500 due messages and forgets the others", "Broker/Delay/Herd", mutation{publish: func(b *broken, ctx context.Context, ms []*driver.Message) error {
		if len(ms) > 500 && ms[0].Delay > 0 {
			return b.Broker.Publish(ctx, ms[:500])
		}
		return b.Broker.Publish(ctx, ms)
	}}},

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
		receive: prefetching(false).receive,
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
