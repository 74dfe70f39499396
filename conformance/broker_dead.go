package conformance

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
)

var deadCases = []Case{
	{Name: "Dead/Fields", Contract: "a dead letter keeps the full message and why it died: error, kind, stack, attempts, history, times, worker", run: deadFields},
	{Name: "Dead/NotDelivered", Contract: "dead letters are not handed out to workers", run: deadNotDelivered},
	{Name: "Dead/ReadOnly", Contract: "List and Get change nothing", run: deadReadOnly},
	{Name: "Dead/Paging", Contract: "List pages through all dead letters, oldest first, each once, at most limit at a time", run: deadPaging},
	{Name: "Dead/Idempotent", Contract: "a dead letter is unique by id and epoch: storing it again is success and adds nothing", run: deadIdempotent},
	{Name: "Dead/Epochs", Contract: "Get returns the dead letters of one task, newest epoch first", run: deadEpochs},
	{Name: "Dead/Replay", Contract: "Replay moves a dead letter back to its queue with the next epoch, its counts and times reset, and returns the new message", run: deadReplay},
	{Name: "Dead/ReplayKey", Contract: "Replay passes over keys that do not exist, other epochs included", run: deadReplayKey},
	{Name: "Dead/TwoReplayers", Contract: "two replayers move each dead letter once between them", run: deadTwoReplayers},
	{Name: "Dead/Delete", Contract: "Delete removes dead letters by id and epoch and returns how many there were", run: deadDelete},
	{Name: "Dead/Purge", Contract: "Purge removes what died before a moment, all for the zero time, and returns how many", run: deadPurge},
	{Name: "Dead/Len", Contract: "Len counts the dead letters of one queue", run: deadLen},
	{Name: "Dead/Queues", Contract: "each queue has its own dead letters", run: deadQueues},
	{Name: "Dead/AgainAfterReplay", Contract: "a replayed task may die again, in its new epoch", run: deadAgain},
	{Name: "Dead/NoExpiry", Contract: "a dead letter stays until somebody removes it", run: deadNoExpiry},
}

// buried is m as a dead letter with every field set.
func (c *C) buried(m *driver.Message) *driver.Message {
	m.Dead = &driver.DeadInfo{Reason: driver.ReasonPoison, Name: "images.resize", Kind: "io", Message: "no such file: \x00\xff é",
		Stack: "goroutine 1\n\tmain.go:1", Worker: "host-1", Attempts: 4, Deliveries: 2, FirstAt: 1_000_000_000_123, LastAt: 1_000_000_111_456,
		History: []driver.FailedAttempt{
			{Attempt: 1, At: 1_000_000_000_123, Kind: "io", Message: "first", Worker: "host-2"},
			{Attempt: 4, At: 1_000_000_111_456, Kind: "", Message: "last\n", Worker: "host-1"}}}
	return m
}

// sameDead compares dead letters.
func (c *C) sameDead(got, want *driver.Message) {
	c.TB.Helper()
	c.sameMessage(got, want)
	if got.Dead == nil {
		c.Fatalf("%s does not say why it died", got.ID)
	}
	g, w := *got.Dead, *want.Dead
	c.expect(slices.Equal(g.History, w.History), "history: got %+v, want %+v", g.History, w.History)
	g.History, w.History = nil, nil
	c.expect(fmt.Sprintf("%+v", g) == fmt.Sprintf("%+v", w), "why it died: got %+v, want %+v", g, w)
}

// deadOf returns all dead letters of a queue.
func (c *C) deadOf(b driver.Broker, queue string) (all []*driver.Message) {
	c.TB.Helper()
	for cursor, pages := "", 0; ; pages++ {
		ms, next, err := b.DeadLetters(queue).List(c.Context(), cursor, 100)
		c.must(err, "list dead letters")
		all = append(all, ms...)
		if next == "" {
			return all
		}
		if pages > 100 {
			c.Fatalf("List does not end")
		}
		cursor = next
	}
}

// bury publishes n dead letters that died a second after each other.
func (c *C) bury(b driver.Broker, n int) []*driver.Message {
	c.TB.Helper()
	ms := c.messages(n)
	for i := range ms {
		ms[i] = dead(ms[i], 1_000_000_000_000+1000*int64(i))
	}
	c.publish(b, ms...)
	return ms
}

func keys(ms []*driver.Message) []driver.DeadKey {
	ks := make([]driver.DeadKey, len(ms))
	for i, m := range ms {
		ks[i] = m.Key()
	}
	return ks
}

func deadFields(c *C) {
	b := c.broker()
	m := c.buried(c.full())
	c.publish(b, m)
	other := c.broker()
	letters := c.deadOf(other, q)
	if len(letters) != 1 {
		c.Fatalf("%d dead letters, want 1", len(letters))
	}
	c.sameDead(letters[0], m)
	got, err := other.DeadLetters(q).Get(c.Context(), m.ID)
	c.must(err, "get")
	if len(got) != 1 {
		c.Fatalf("Get returned %d dead letters, want 1", len(got))
	}
	c.sameDead(got[0], m)
	none, err := other.DeadLetters(q).Get(c.Context(), "unknown")
	c.expect(err == nil && len(none) == 0, "Get of an unknown id: got %v, %v", ids(none), err)
}

func deadNotDelivered(c *C) {
	b := c.broker()
	s := c.worker()
	c.bury(b, 3)
	c.none(s, c.lease, "a dead letter is handed out")
	live := c.message()
	c.publish(b, live)
	c.expect(c.one(s).ID == live.ID, "living messages are")
}

func deadReadOnly(c *C) {
	b := c.broker()
	ms := c.bury(b, 5)
	for range 3 {
		got := c.deadOf(b, q)
		c.same(messageIDs(got), messageIDs(ms), "List changes nothing")
		for i, m := range got {
			c.expect(m.Dead != nil && m.Dead.LastAt == ms[i].Dead.LastAt, "List changes nothing in %s", m.ID)
		}
		one, err := b.DeadLetters(q).Get(c.Context(), ms[2].ID)
		c.expect(err == nil && len(one) == 1, "Get changes nothing: got %d, %v", len(one), err)
	}
	n, err := b.DeadLetters(q).Replay(c.Context(), keys(ms))
	c.expect(err == nil && len(n) == 5, "what was listed can be replayed: got %d, %v", len(n), err)
}

func deadPaging(c *C) {
	b := c.broker()
	ms := c.bury(b, 125)
	same := c.messages(25) // many of one moment
	for i := range same {
		same[i] = dead(same[i], 1_500_000_000_000)
	}
	c.publish(b, same...)
	var got []*driver.Message
	for cursor := ""; ; {
		page, next, err := b.DeadLetters(q).List(c.Context(), cursor, 10)
		c.must(err, "list")
		c.expect(len(page) <= 10, "a page of %d, asked for 10", len(page))
		got = append(got, page...)
		if cursor = next; cursor == "" || len(got) > 300 {
			break
		}
	}
	c.same(messageIDs(got), append(messageIDs(ms), messageIDs(same)...), "all pages together")
	if len(got) >= 125 {
		c.expect(slices.Equal(messageIDs(got[:125]), messageIDs(ms)), "oldest first: got %v", short(messageIDs(got)))
	}
	one, next, err := b.DeadLetters(q).List(c.Context(), "", 1)
	c.expect(err == nil && len(one) == 1 && next != "" && one[0].ID == ms[0].ID, "a page of one: got %v, %q, %v", ids(one), next, err)
	none, next, err := b.DeadLetters("unused").List(c.Context(), "", 10)
	c.expect(err == nil && len(none) == 0 && next == "", "an unused queue has none: got %v, %q, %v", ids(none), next, err)
}

func deadIdempotent(c *C) {
	b := c.broker()
	m := dead(c.message(), 1)
	for range 2 {
		c.must(driver.ItemError(b.Publish(c.Context(), []*driver.Message{m}), 0, 1), "publish a dead letter again")
	}
	s := c.worker()
	work := c.message()
	c.publish(b, work)
	c.must(c.settleOne(s, driver.Settlement{Delivery: c.one(s), Then: []*driver.Message{m}}), "dead-letter it again")
	letters := c.deadOf(b, q)
	c.expect(len(letters) == 1, "entries of one id and epoch are one: got %v", ids(letters))
	got, err := b.DeadLetters(q).Replay(c.Context(), []driver.DeadKey{m.Key(), m.Key()})
	c.expect(err == nil && len(got) == 1, "and are replayed once: got %v, %v", ids(got), err)
	c.ack(s, c.one(s))
	c.none(s, c.lease/2, "and run once")
	c.expect(len(c.deadOf(b, q)) == 0, "and are gone")
}

func deadEpochs(c *C) {
	b := c.broker()
	m := c.message()
	for _, epoch := range []uint32{1, 0, 2} {
		d := dead(m, int64(epoch)+1)
		d.Epoch = epoch
		c.publish(b, d)
	}
	got, err := b.DeadLetters(q).Get(c.Context(), m.ID)
	c.must(err, "get")
	var epochs []uint32
	for _, d := range got {
		epochs = append(epochs, d.Epoch)
	}
	c.expect(slices.Equal(epochs, []uint32{2, 1, 0}), "newest epoch first: got %v", epochs)
}

func deadReplay(c *C) {
	b := c.broker()
	m := c.buried(c.full())
	m.NoRecord, m.Once = false, false
	c.publish(b, m)
	got, err := b.DeadLetters(q).Replay(c.Context(), []driver.DeadKey{m.Key()})
	c.must(err, "replay")
	want := m.Replayed()
	if len(got) != 1 {
		c.Fatalf("Replay returned %d messages, want 1", len(got))
	}
	c.sameMessage(got[0], want)
	s := c.worker()
	d := c.one(s)
	c.sameMessage(&d.Message, want)
	c.expect(d.Count == 1 && d.Dead == nil, "a replay starts from scratch: count %d, %+v", d.Count, d.Dead)
	c.expect(len(c.deadOf(b, q)) == 0, "what was replayed is no dead letter any more")
	c.ack(s, d)
	c.empty(b, "replayed once")
}

func deadReplayKey(c *C) {
	b := c.broker()
	ms := c.bury(b, 3)
	got, err := b.DeadLetters(q).Replay(c.Context(), []driver.DeadKey{{ID: "unknown"}, {ID: ms[0].ID, Epoch: 1}, ms[1].Key()})
	c.must(err, "replay")
	c.same(messageIDs(got), []string{ms[1].ID}, "only what exists is replayed")
	c.same(messageIDs(c.deadOf(b, q)), []string{ms[0].ID, ms[2].ID}, "the others stay")
	got, err = b.DeadLetters("unused").Replay(c.Context(), keys(ms))
	c.expect(err == nil && len(got) == 0, "another queue's are not replayed: got %v, %v", ids(got), err)
	got, err = b.DeadLetters(q).Replay(c.Context(), nil)
	c.expect(err == nil && len(got) == 0, "no keys replay nothing: got %v, %v", ids(got), err)
}

func deadTwoReplayers(c *C) {
	b := c.broker()
	ms := c.bury(b, 60)
	var mu sync.Mutex
	var moved []string
	var wg sync.WaitGroup
	for i := range 6 {
		replayer := c.broker()
		wg.Go(func() {
			for part := range slices.Chunk(keys(ms), 5+i) {
				got, err := replayer.DeadLetters(q).Replay(c.Context(), part)
				if err != nil {
					c.Errorf("replay: %v", err)
				}
				mu.Lock()
				moved = append(moved, messageIDs(got)...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	c.same(moved, messageIDs(ms), "the replayers together report each once")
	s := c.worker()
	ds := c.receive(s, 60)
	c.same(deliveredIDs(ds), messageIDs(ms), "each arrives once")
	c.ack(s, ds...)
	c.none(s, c.lease/2, "each arrives once")
}

func deadDelete(c *C) {
	b := c.broker()
	ms := c.bury(b, 4)
	twin := ms[0].Clone()
	twin.Epoch = 1
	c.publish(b, twin)
	n, err := b.DeadLetters(q).Delete(c.Context(), []driver.DeadKey{ms[0].Key(), ms[2].Key(), {ID: "unknown"}, {ID: ms[1].ID, Epoch: 9}})
	c.expect(err == nil && n == 2, "two of four exist: got %d, %v", n, err)
	c.same(messageIDs(c.deadOf(b, q)), []string{ms[1].ID, ms[3].ID, twin.ID}, "the others stay, other epochs included")
	n, err = b.DeadLetters(q).Delete(c.Context(), []driver.DeadKey{ms[0].Key()})
	c.expect(err == nil && n == 0, "deleting again: got %d, %v", n, err)
	n, err = b.DeadLetters("unused").Delete(c.Context(), keys(ms))
	c.expect(err == nil && n == 0, "another queue's are not deleted: got %d, %v", n, err)
	c.none(c.worker(), c.lease/4, "what is deleted does not run")
	ms[2].Dead = nil
	c.publish(b, ms[2]) // its id is free again
}

func deadPurge(c *C) {
	b := c.broker()
	ms := c.bury(b, 10)
	cut := time.UnixMilli(ms[4].Dead.LastAt)
	n, err := b.DeadLetters(q).Purge(c.Context(), cut)
	c.expect(err == nil && n == 4, "four died before: got %d, %v", n, err)
	c.same(messageIDs(c.deadOf(b, q)), messageIDs(ms[4:]), "those that died later stay")
	n, err = b.DeadLetters("unused").Purge(c.Context(), time.Time{})
	c.expect(err == nil && n == 0, "an unused queue: got %d, %v", n, err)
	n, err = b.DeadLetters(q).Purge(c.Context(), time.Time{})
	c.expect(err == nil && n == 6, "all the others: got %d, %v", n, err)
	c.expect(len(c.deadOf(b, q)) == 0, "all are gone")
}

func deadLen(c *C) {
	b := c.broker()
	size := func(queue string, want int) {
		c.TB.Helper()
		n, err := b.DeadLetters(queue).Len(c.Context())
		c.expect(err == nil && n == want, "Len of %s: got %d, %v, want %d", queue, n, err, want)
	}
	size(q, 0)
	ms := c.bury(b, 120)
	c.publish(b, c.messages(3)...)
	size(q, 120)
	size("unused", 0)
	if _, err := b.DeadLetters(q).Replay(c.Context(), keys(ms[:2])); err != nil {
		c.Errorf("replay: %v", err)
	}
	if _, err := b.DeadLetters(q).Delete(c.Context(), keys(ms[2:3])); err != nil {
		c.Errorf("delete: %v", err)
	}
	size(q, 117)
}

func deadQueues(c *C) {
	b := c.broker()
	a, z := c.message(), c.message()
	a.Queue, z.Queue = "a", "z"
	c.publish(b, dead(a, 1), dead(z, 2))
	for _, m := range []*driver.Message{a, z} {
		got := c.deadOf(b, m.Queue)
		c.same(messageIDs(got), []string{m.ID}, "the dead letters of "+m.Queue)
	}
	got, err := b.DeadLetters("a").Get(c.Context(), z.ID)
	c.expect(err == nil && len(got) == 0, "Get in another queue: got %v, %v", ids(got), err)
	if _, err := b.DeadLetters("a").Replay(c.Context(), keys([]*driver.Message{a, z})); err != nil {
		c.Errorf("replay: %v", err)
	}
	c.expect(c.one(c.worker("a", "z")).Queue == "a", "a replay goes back to its own queue")
	c.same(messageIDs(c.deadOf(b, "z")), []string{z.ID}, "the other queue's stays")
}

func deadAgain(c *C) {
	b := c.broker()
	s := c.worker()
	m := dead(c.message(), 1)
	c.publish(b, m)
	for epoch := uint32(1); epoch <= 3; epoch++ {
		got, err := b.DeadLetters(q).Replay(c.Context(), []driver.DeadKey{{ID: m.ID, Epoch: epoch - 1}})
		c.expect(err == nil && len(got) == 1 && got[0].Epoch == epoch, "replay %d: got %v, %v", epoch, ids(got), err)
		d := c.one(s)
		c.must(c.settleOne(s, driver.Settlement{Delivery: d, Then: []*driver.Message{dead(d.Clone(), int64(epoch)+1)}}), "dead-letter it")
		letters := c.deadOf(b, q)
		c.expect(len(letters) == 1 && letters[0].Epoch == epoch, "it is there in epoch %d: got %v", epoch, ids(letters))
	}
}

func deadNoExpiry(c *C) {
	b := c.broker()
	c.bury(b, 2)
	if c.h.Bubble {
		c.sleep(3 * time.Hour)
	} else {
		c.sleep(3 * c.lease)
	}
	c.expect(len(c.deadOf(b, q)) == 2, "both are there")
}
