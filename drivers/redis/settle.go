package redis

import (
	"context"
	"encoding/binary"
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
	return driver.Batch(s.settleAll(ctx, ss))
}

func (s *subscription) settleAll(ctx context.Context, ss []driver.Settlement) []error {
	return each(s.broker.conn, ss, s.keyOf, func(key string, ss []driver.Settlement) []error {
		return batches(len(ss), func(i int) int { return settlementSize(&ss[i]) }, func(from, to int) error {
			return s.settle(ctx, key, ss[from:to])
		})
	})
}

// keyOf is the key of the queue that a settlement is about, "" of what is not s's.
func (s *subscription) keyOf(one driver.Settlement) string {
	if h := s.handleOf(one.Delivery); h != nil {
		return h.key
	}
	return ""
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

// settle settles ss, of the queue that is called key in a cluster.
func (s *subscription) settle(ctx context.Context, key string, ss []driver.Settlement) error {
	c, covering := s.broker.conn, s.broker.covering.Load()
	errs := make([]error, len(ss))
	for i := range ss {
		if errs[i] = checkSettlement(&ss[i]); s.handleOf(ss[i].Delivery) == nil {
			errs[i] = driver.ErrLeaseLost
		}
	}
	for i := range ss {
		if errs[i] == nil {
			h := s.handleOf(ss[i].Delivery)
			h.settling.Add(1)
			defer h.settling.Add(-1)
		}
	}
	stored := make([]int, len(ss)) // of what follows, already
	if c.cluster {
		done, err := s.settling(ctx, ss, errs)
		if err != nil {
			return err
		}
		defer done()
		ss, stored = s.publishFirst(ctx, key, ss, errs)
	}
	args := arguments{args: make([]any, 0, perMessage*len(ss))}
	var sent []int
	for i := range ss {
		if errs[i] == nil {
			c.appendSettlement(&args, s.handleOf(ss[i].Delivery), &ss[i], covering)
			sent = append(sent, i)
		}
	}
	if len(sent) == 0 {
		return driver.Batch(errs)
	}
	value, err := c.run(ctx, settleScript, key, args.after(c.scope(key), s.broker.covers())...)
	var answers string
	if err == nil {
		answers, err = codes(value, len(sent))
	}
	if err != nil && s.broker.closed.Load() {
		err = driver.ErrClosed
	}
	ended := make([]*handle, 0, len(sent))
	for j, i := range sent {
		if errs[i] = partly(stored[i], err); err == nil {
			errs[i] = verdicts[answers[j]]
			if !errors.Is(errs[i], driver.ErrStarted) {
				ended = append(ended, s.handleOf(ss[i].Delivery))
			}
		}
	}
	s.release(ended...)
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
func (c *conn) appendSettlement(args *arguments, h *handle, s *driver.Settlement, covering bool) {
	update := []byte{}
	if covering && s.Record != nil {
		update = encodeUpdate(s.Record)
	}
	args.add(settlementHead(args.queue(h.key), h, s), h.entry, update)
	for _, m := range s.Then {
		c.appendMessage(args, m, false)
	}
}

// settlementHead is the head of lua/settle.lua.
func settlementHead(q uint16, h *handle, s *driver.Settlement) []byte {
	action := byte('a')
	if s.Action == driver.Release {
		action = 'r'
	}
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 20+len(h.id)), q)
	b = append(b, h.level, action, flag(h.tracked, 1))
	b = binary.BigEndian.AppendUint32(b, h.generation)
	b = binary.BigEndian.AppendUint64(b, uint64(millis(s.Delay)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.Then)))
	return appendShort(b, h.id)
}

// Extend implements [driver.Subscription].
func (s *subscription) Extend(ctx context.Context, ds []*driver.Delivery) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	keyOf := func(d *driver.Delivery) string { return s.keyOf(driver.Settlement{Delivery: d}) }
	return driver.Batch(each(s.broker.conn, ds, keyOf, func(key string, ds []*driver.Delivery) []error {
		return batches(len(ds), func(int) int { return 0 }, func(from, to int) error {
			return s.extend(ctx, key, ds[from:to])
		})
	}))
}

func (s *subscription) extend(ctx context.Context, key string, ds []*driver.Delivery) error {
	errs := make([]error, len(ds))
	var hs []*handle
	var sent []int
	settling := make([]bool, len(ds))
	for i, d := range ds {
		h := s.handleOf(d)
		if h == nil {
			errs[i] = driver.ErrLeaseLost
			continue
		}
		settling[i] = h.settling.Load() > 0
		hs, sent = append(hs, h), append(sent, i)
	}
	if len(sent) == 0 {
		return driver.Batch(errs)
	}
	answers, err := s.extendHandles(ctx, key, hs)
	now := time.Now()
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
			s.release(h)
		}
	}
	return driver.Batch(errs)
}

// extendHandles returns the codes of lua/extend.lua.
func (s *subscription) extendHandles(ctx context.Context, key string, hs []*handle) (string, error) {
	args := make([]any, 0, 4*len(hs))
	for _, h := range hs {
		args = append(args, h.key, h.level, h.entry, h.generation)
	}
	value, err := s.broker.conn.run(ctx, extendScript, key, args...)
	if err != nil && s.broker.closed.Load() {
		err = driver.ErrClosed
	}
	if err != nil {
		return "", err
	}
	return codes(value, len(hs))
}
