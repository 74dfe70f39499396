package conformance

import (
	"context"
	"errors"
	"time"

	"github.com/chicory-go/chicory/driver"
)

const notCovered = "the broker does not cover the backend, and leaves records alone"

var coverCases = []Case{
	{Name: "Cover/Publish", Contract: "a message's record is written in the step that stores it", Denied: notCovered, run: covered(coverPublish)},
	{Name: "Cover/PublishAlive", Contract: "an id whose record or skeleton is alive is refused, unless the record is the publish's own provisional one", Denied: notCovered, run: covered(coverPublishAlive)},
	{Name: "Cover/Claim", Contract: "an at-least-once message that was handed out reads STARTED", Denied: notCovered, run: covered(coverClaim)},
	{Name: "Cover/ClaimObeys", Contract: "no message is handed out against its record; one that is met ends a cancellation's hold", Denied: notCovered, run: covered(coverClaimObeys)},
	{Name: "Cover/Settle", Contract: "a settlement's record is written in the same step, with its Then", Denied: notCovered, run: covered(coverSettle)},
	{Name: "Cover/ClaimFrees", Contract: "a message that its record refused at the claim is gone: its id is not alive as a message", Denied: notCovered, run: covered(coverClaimFrees)},
	{Name: "Cover/SettleCancelled", Contract: "the TTL of a CANCELLED written by a settlement runs at once: its message was met", Denied: notCovered, run: covered(coverSettleCancelled)},
	{Name: "Cover/SettleStale", Contract: "a settlement whose record is stale acknowledges without its Then, and says ErrStale", Denied: notCovered, run: covered(coverSettleStale)},
	{Name: "Cover/StaleToken", Contract: "a stale delivery writes no record", Denied: notCovered, run: covered(coverStaleToken)},
	{Name: "Cover/StartDelivery", Contract: "a start that names its delivery is refused with ErrLeaseLost unless it is current", Denied: notCovered, run: covered(coverStartDelivery)},
	{Name: "Cover/ParkOnce", Contract: "a settlement that parks a started at-most-once task is ErrStarted and changes nothing", Denied: notCovered, run: covered(coverParkOnce)},
	{Name: "Cover/Replay", Contract: "a replay writes PENDING of the new epoch in its step", Denied: notCovered, run: covered(coverReplay)},
	{Name: "Cover/Foreign", Contract: "a broker covers the backends of its own store and namespace only", run: coverForeign},
}

// A covering is a broker and its backend.
type covering struct {
	*C
	b  driver.Broker
	be driver.Backend
	s  driver.Subscription
}

// covered runs f on a broker that covers its backend. On one that does not, it
// proves that records are left alone.
func covered(f func(*covering)) func(*C) {
	return func(c *C) {
		k := &covering{C: c, b: c.broker()}
		if c.h.OpenBackend == nil {
			return
		}
		k.be = c.h.OpenBackend(c.TB, namespace, k.b)
		c.Cleanup(func() { k.be.Close(context.Background()) })
		cov, ok := driver.As[driver.Coverer](k.b)
		if ok && cov.Covers(k.be) {
			k.s = k.subscribe(k.b)
			f(k)
			return
		}
		m := k.tracked()
		c.publish(k.b, m)
		s := c.subscribe(k.b)
		d := c.one(s)
		done := update(m.ID, driver.Success)
		c.must(c.settleOne(s, driver.Settlement{Delivery: d, Record: &done}), "settle")
		c.state(k.be, m.ID, "")
	}
}

// tracked is a message with its PENDING record.
func (k *covering) tracked() *driver.Message {
	m := k.message()
	u := update(m.ID, driver.Pending)
	m.Record = &u
	return m
}

// sent publishes a tracked message and receives it.
func (k *covering) sent() *driver.Delivery {
	k.TB.Helper()
	k.publish(k.b, k.tracked())
	return k.one(k.s)
}

func coverPublish(k *covering) {
	m := k.tracked()
	m.Record.Due, m.Record.ReplyTo = 77, "here"
	buried := dead(k.message(), 1)
	k.publish(k.b, m, buried)
	r := k.state(k.be, m.ID, driver.Pending)
	k.expect(r.Due == 77 && r.ReplyTo == "here" && r.PendingAt > 0, "the record is the one given: got %+v", r)
	d := k.one(k.s)
	k.expect(d.Record == nil, "it is not stored with the message")
	batch := []*driver.Message{k.tracked(), k.tracked(), m.Clone()}
	u := update(m.ID, driver.Pending)
	batch[2].Record = &u
	err := k.b.Publish(k.Context(), batch)
	k.expect(errors.Is(driver.ItemError(err, 2, 3), driver.ErrDuplicate), "a duplicate: got %v", err)
	k.state(k.be, batch[0].ID, driver.Pending)
	k.state(k.be, batch[1].ID, driver.Pending)
	k.state(k.be, m.ID, driver.Started)
}

func coverPublishAlive(k *covering) {
	refused := func(id, when string) {
		k.TB.Helper()
		m := &driver.Message{ID: id, Queue: q, Attempt: 1, Envelope: []byte("x")}
		u := update(id, driver.Pending)
		m.Record = &u
		err := driver.ItemError(k.b.Publish(k.Context(), []*driver.Message{m}), 0, 1)
		k.expect(errors.Is(err, driver.ErrDuplicate), "%s: got %v, want ErrDuplicate", when, err)
		m.Repeat = true
		err = driver.ItemError(k.b.Publish(k.Context(), []*driver.Message{m}), 0, 1)
		k.expect(err == nil, "%s, core repeats: got %v", when, err)
	}
	done := update("done", driver.Success)
	done.TTL = k.lease / 2
	k.apply(k.be, update("pending", driver.Pending), done)
	refused("pending", "a record is alive")
	refused("done", "a terminal record is alive")
	k.sleep(k.lease/2 + k.slack)
	refused("done", "a skeleton is alive")
	k.none(k.s, k.lease/8, "nothing was stored")
	claimed := k.message()
	u := update(claimed.ID, driver.Pending)
	provisional := u
	provisional.Provisional = true
	k.apply(k.be, provisional)
	claimed.Record = &u
	k.publish(k.b, claimed)
	k.expect(!k.state(k.be, claimed.ID, driver.Pending).Provisional, "the publish confirms its provisional record")
}

func coverClaim(k *covering) {
	d := k.sent()
	r := k.state(k.be, d.ID, driver.Started)
	k.expect(r.StartedAt > 0 && r.Version() == d.Version(), "got %+v", r)
	k.release(k.s, d)
	d = k.one(k.s)
	k.state(k.be, d.ID, driver.Started)
	k.ack(k.s, d)
	m := k.tracked()
	m.Once, m.Record.Once = true, true
	k.publish(k.b, m)
	d = k.one(k.s)
	k.state(k.be, d.ID, driver.Pending) // at-most-once starts with Start
	k.ack(k.s, d)
	plain := k.message()
	k.publish(k.b, plain)
	k.ack(k.s, k.one(k.s))
}

func coverClaimObeys(k *covering) {
	cancelled, newer, fresh := k.tracked(), k.tracked(), k.tracked()
	k.publish(k.b, cancelled, newer, fresh)
	cancel := update(cancelled.ID, driver.Cancelled)
	cancel.TTL = k.lease
	k.apply(k.be, cancel, version(update(newer.ID, driver.Pending), 0, 3))
	d := k.one(k.s)
	k.expect(d.ID == fresh.ID, "got %s, want %s", d.ID, fresh.ID)
	k.none(k.s, k.lease/2, "a message is handed out against its record")
	k.ack(k.s, d)
	k.sleep(k.lease/2 + k.slack)
	k.state(k.be, cancelled.ID, "") // its TTL began when its message was met
	u := update(cancelled.ID, driver.Cancelled)
	k.stales(k.be, u, "a skeleton is left")
}

func coverClaimFrees(k *covering) {
	m := k.tracked()
	k.publish(k.b, m)
	k.apply(k.be, update(m.ID, driver.Cancelled))
	k.none(k.s, k.lease/8, "a message is handed out against its record")
	again := m.Clone() // without a record, which would refuse it
	again.NoRecord, again.Once = true, true
	k.publish(k.b, again)
	d := k.one(k.s)
	k.expect(d.ID == m.ID && d.NoRecord, "got %+v", d.Message)
	k.ack(k.s, d)
}

func coverSettleCancelled(k *covering) {
	d := k.sent()
	cancelled := update(d.ID, driver.Cancelled)
	cancelled.TTL = k.lease / 4
	k.must(k.settleOne(k.s, driver.Settlement{Delivery: d, Record: &cancelled}), "settle")
	r := k.state(k.be, d.ID, driver.Cancelled)
	k.expect(!r.Held, "it is held though its message was met: %+v", r)
	k.sleep(k.lease/4 + k.slack)
	k.state(k.be, d.ID, "")
}

func coverSettle(k *covering) {
	d := k.sent()
	done := update(d.ID, driver.Success)
	done.Body, done.ContentType, done.TTL = []byte("result"), "x/y", time.Hour
	k.must(k.settleOne(k.s, driver.Settlement{Delivery: d, Record: &done}), "settle")
	r := k.state(k.be, d.ID, driver.Success)
	k.expect(string(r.Body) == "result" && r.ContentType == "x/y" && r.FinishedAt > 0, "got %+v", r)
	d = k.sent()
	retry := version(update(d.ID, driver.Retry), 0, 0)
	next := d.Clone()
	next.Seq, next.Attempt, next.Delay = 1, 2, k.lease/4
	retry.Next = next
	k.must(k.settleOne(k.s, driver.Settlement{Delivery: d, Record: &retry, Then: []*driver.Message{next}}), "settle")
	k.state(k.be, d.ID, driver.Retry)
	d = k.one(k.s)
	k.expect(d.Seq == 1 && d.Attempt == 2, "got %+v", d.Message)
	k.state(k.be, d.ID, driver.Started)
	buried := version(update(d.ID, driver.DeadLettered), 0, 1)
	k.must(k.settleOne(k.s, driver.Settlement{Delivery: d, Record: &buried, Then: []*driver.Message{dead(d.Clone(), 1)}}), "settle")
	k.state(k.be, d.ID, driver.DeadLettered)
	k.expect(len(k.deadOf(k.b, q)) == 1, "it is among the dead letters")
	k.empty(k.b, "all are settled")
}

func coverSettleStale(k *covering) {
	d := k.sent()
	k.apply(k.be, update(d.ID, driver.Cancelled))
	next := d.Clone()
	next.Seq = 1
	retry := version(update(d.ID, driver.Retry), 0, 0)
	err := k.settleOne(k.s, driver.Settlement{Delivery: d, Record: &retry, Then: []*driver.Message{next, dead(d.Clone(), 1)}})
	k.expect(errors.Is(err, driver.ErrStale), "got %v, want ErrStale", err)
	k.state(k.be, d.ID, driver.Cancelled)
	k.empty(k.b, "it is acknowledged, without its Then")
	k.expect(len(k.deadOf(k.b, q)) == 0, "nothing is dead-lettered against the record")
	err = k.settleOne(k.s, driver.Settlement{Delivery: d})
	k.expect(errors.Is(err, driver.ErrLeaseLost), "it is acknowledged: got %v", err)
}

func coverStaleToken(k *covering) {
	d := k.sent()
	k.lose(k.b)
	now := k.one(k.worker())
	k.expect(now.ID == d.ID, "got %s", now.ID)
	done := update(d.ID, driver.Success)
	err := k.settleOne(k.s, driver.Settlement{Delivery: d, Record: &done})
	k.expect(errors.Is(err, driver.ErrLeaseLost), "got %v, want ErrLeaseLost", err)
	k.state(k.be, d.ID, driver.Started)
}

func coverStartDelivery(k *covering) {
	m := k.tracked()
	m.Once, m.Record.Once = true, true
	k.publish(k.b, m)
	d := k.one(k.s)
	s := driver.Start{ID: d.ID, Attempt: 1, Copy: d.Copy, Count: d.Count, Once: true, Delivery: d}
	k.lose(k.b)
	t := k.worker()
	now := k.one(t)
	g := k.try(k.be, s)
	k.expect(errors.Is(g.Err, driver.ErrLeaseLost), "a start of a lost delivery: got %v, want ErrLeaseLost", g.Err)
	k.state(k.be, d.ID, driver.Pending)
	s.Count, s.Delivery = now.Count, now
	k.grant(k.be, s)
	k.state(k.be, d.ID, driver.Started)
	k.ack(t, now)
	g = k.try(k.be, s)
	k.expect(g.Err != nil, "a start after the settlement is refused")
}

func coverParkOnce(k *covering) {
	m := k.tracked()
	m.Once, m.Record.Once = true, true
	k.publish(k.b, m)
	d := k.one(k.s)
	k.grant(k.be, driver.Start{ID: d.ID, Attempt: 1, Copy: d.Copy, Count: d.Count, Once: true, Delivery: d})
	next := d.Clone()
	next.Seq = 1
	park := version(update(d.ID, driver.Retry), 0, 0)
	park.Once = true
	err := k.settleOne(k.s, driver.Settlement{Delivery: d, Record: &park, Then: []*driver.Message{next}})
	k.expect(errors.Is(err, driver.ErrStarted), "got %v, want ErrStarted", err)
	k.state(k.be, d.ID, driver.Started)
	k.must(k.s.Extend(k.Context(), []*driver.Delivery{d}), "it is still held")
	lost := update(d.ID, driver.DeadLettered)
	lost.Once = true
	k.must(k.settleOne(k.s, driver.Settlement{Delivery: d, Record: &lost, Then: []*driver.Message{dead(d.Clone(), 1)}}), "settle as lost")
	k.state(k.be, d.ID, driver.DeadLettered)
	k.empty(k.b, "nothing was parked")
}

func coverReplay(k *covering) {
	d := k.sent()
	buried := update(d.ID, driver.DeadLettered)
	k.must(k.settleOne(k.s, driver.Settlement{Delivery: d, Record: &buried, Then: []*driver.Message{dead(d.Clone(), 1)}}), "settle")
	ms, err := k.b.DeadLetters(q).Replay(k.Context(), []driver.DeadKey{{ID: d.ID}})
	k.expect(err == nil && len(ms) == 1, "replay: got %v, %v", ids(ms), err)
	r := k.record(k.be, d.ID)
	k.expect(r != nil && r.State == driver.Pending && r.Epoch == 1 && r.Error == nil, "the record is PENDING in epoch 1: got %+v", r)
	d = k.one(k.s)
	done := version(update(d.ID, driver.Success), 1, 0)
	k.must(k.settleOne(k.s, driver.Settlement{Delivery: d, Record: &done}), "settle")
	k.state(k.be, d.ID, driver.Success)
}

// coverForeign proves that a broker does not cover what is not its own.
func coverForeign(c *C) {
	b := c.broker()
	cov, ok := driver.As[driver.Coverer](b)
	if !ok {
		return
	}
	c.expect(!cov.Covers(foreign{}), "a backend of another driver")
	if c.h.OpenBackend == nil {
		return
	}
	other := c.h.OpenBackend(c.TB, "elsewhere", nil)
	defer other.Close(context.Background())
	c.expect(!cov.Covers(other), "a backend of another namespace")
	far := c.newHarness(c.TB).OpenBackend(c.TB, namespace, nil)
	defer far.Close(context.Background())
	c.expect(!cov.Covers(far), "a backend of another store")
}

type foreign struct{ driver.Backend }
