package redis

import (
	"context"
	"errors"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// Settle implements [driver.Subscription].
func (s *subscription) Settle(ctx context.Context, ss []driver.Settlement) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	s.broker.enlistNext(ctx, ss)
	return s.settleAll(ctx, ss)
}

func (s *subscription) settleAll(ctx context.Context, ss []driver.Settlement) error {
	errs := batches(len(ss), func(i int) int { return settlementSize(&ss[i]) }, func(from, to int) error {
		return s.settle(ctx, ss[from:to])
	})
	return driver.Batch(errs)
}

func settlementSize(s *driver.Settlement) (n int) {
	for _, m := range s.Then {
		n += messageSize(m)
	}
	if s.Record != nil {
		n += updateSize(s.Record)
	}
	return n
}

func updateSize(u *driver.Update) int {
	n := len(u.Body)
	if u.Next != nil {
		n += messageSize(u.Next)
	}
	return n
}

func (s *subscription) settle(ctx context.Context, ss []driver.Settlement) error {
	c, covering := s.broker.conn, s.broker.covering.Load()
	errs := make([]error, len(ss))
	args := []any{c.prefix, s.broker.covers()}
	var sent []int
	for i := range ss {
		h := s.handleOf(ss[i].Delivery)
		if h == nil {
			errs[i] = driver.ErrLeaseLost
			continue
		}
		if errs[i] = checkSettlement(&ss[i]); errs[i] != nil {
			continue
		}
		h.settling.Add(1)
		defer h.settling.Add(-1)
		args, sent = c.appendSettlement(args, h, &ss[i], covering), append(sent, i)
	}
	if len(sent) == 0 {
		return driver.Batch(errs)
	}
	value, err := c.run(ctx, settleScript, args...)
	var answers string
	if err == nil {
		answers, err = codes(value, len(sent))
	}
	if err != nil && s.broker.closed.Load() {
		err = driver.ErrClosed
	}
	for j, i := range sent {
		if errs[i] = err; err == nil {
			errs[i] = verdicts[answers[j]]
			if !errors.Is(errs[i], driver.ErrStarted) {
				s.handleOf(ss[i].Delivery).end()
			}
		}
	}
	return driver.Batch(errs)
}

// checkSettlement refuses what cannot be stored.
func checkSettlement(s *driver.Settlement) error {
	errs := make([]error, len(s.Then))
	for i, m := range s.Then {
		errs[i] = checkMessage(m)
	}
	if err := driver.Batch(errs); err != nil {
		return err
	}
	if s.Record != nil {
		return checkUpdate(s.Record)
	}
	return nil
}

// appendSettlement appends what lua/settle.lua wants of s.
func (c *conn) appendSettlement(args []any, h *handle, s *driver.Settlement, covering bool) []any {
	action, update := "a", any("")
	if s.Action == driver.Release {
		action = "r"
	}
	if covering && s.Record != nil {
		update = encodeUpdate(s.Record)
	}
	args = append(args, h.key, h.level, h.entry, h.generation, action, millis(s.Delay), tracks(h.tracked)+h.id, update, len(s.Then))
	for _, m := range s.Then {
		args = c.appendMessage(args, m, false)
	}
	return args
}

// tracks says whether what is known of an ID knows of the message.
func tracks(tracked bool) string {
	if tracked {
		return "t"
	}
	return "u"
}

// Extend implements [driver.Subscription].
func (s *subscription) Extend(ctx context.Context, ds []*driver.Delivery) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	errs := batches(len(ds), func(int) int { return 0 }, func(from, to int) error {
		return s.extend(ctx, ds[from:to])
	})
	return driver.Batch(errs)
}

func (s *subscription) extend(ctx context.Context, ds []*driver.Delivery) error {
	errs := make([]error, len(ds))
	var args []any
	var sent []int
	settling := make([]bool, len(ds))
	for i, d := range ds {
		h := s.handleOf(d)
		if h == nil {
			errs[i] = driver.ErrLeaseLost
			continue
		}
		settling[i] = h.settling.Load() > 0
		args, sent = append(args, h.key, h.level, h.entry, h.generation), append(sent, i)
	}
	if len(sent) == 0 {
		return driver.Batch(errs)
	}
	value, err := s.broker.conn.run(ctx, extendScript, args...)
	now := time.Now()
	var answers string
	if err == nil {
		answers, err = codes(value, len(sent))
	}
	if err != nil && s.broker.closed.Load() {
		err = driver.ErrClosed
	}
	for j, i := range sent {
		if errs[i] = err; err != nil {
			continue
		}
		if answers[j] == '0' {
			s.handleOf(ds[i]).renew(now)
			continue
		}
		if h := s.handleOf(ds[i]); !settling[i] && h.settling.Load() == 0 { // being settled is not lost
			errs[i] = driver.ErrLeaseLost
			h.end()
		}
	}
	return driver.Batch(errs)
}
