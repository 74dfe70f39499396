package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
)

// noRecord begins the ids of messages without a record.
const noRecord = "n-"

// A child publishes and works until it is killed, and says what it did.
type child struct {
	broker  *bolt.Broker
	backend *bolt.Backend
	sub     driver.Subscription
	mu      sync.Mutex
}

// workUntilKilled is the main function of the child.
func workUntilKilled(path string) {
	s, err := bolt.Open(context.Background(), path, nil)
	must(err)
	c := &child{broker: s.Broker("ns"), backend: s.Backend("ns")}
	c.sub, err = c.broker.Subscribe(context.Background(), &driver.SubscribeOptions{Prefetch: 64, Slots: 64,
		Lease: lease, Queues: []driver.QueueSpec{{Name: "q"}}})
	must(err)
	c.say("open", path)
	for i := range 4 {
		go c.produce(i)
	}
	c.consume()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// stored reports that something was stored, and not refused by a full disk.
func stored(err error) bool {
	if errors.Is(err, driver.ErrFull) {
		return false
	}
	must(err)
	return true
}

// say writes a line at once, so that it is out before anything that follows.
func (c *child) say(what, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Println(what, id)
}

func (c *child) produce(i int) {
	who := fmt.Sprintf("%x-%d", os.Getpid(), i)
	for n := 1; ; n++ {
		m := tracked(fmt.Sprint(who, "-", n))
		switch rand.IntN(8) {
		case 0:
			m.Delay = time.Duration(rand.IntN(50)) * time.Millisecond
		case 1:
			m.Once, m.Record.Once = true, true
		case 2:
			m.Priority = uint8(rand.IntN(10))
		case 3:
			m = message(noRecord + m.ID)
			m.Once, m.NoRecord = true, true
		case 4:
			pair := fmt.Sprint("put-", who, " ", n)
			c.say("putting", pair)
			if stored(c.broker.Put(context.Background(), "put-"+who, fmt.Append(nil, n), 0)) {
				c.say("put", pair)
			}
		}
		if rand.IntN(16) == 0 {
			m.Envelope = make([]byte, 32<<10) // of several pages
		}
		if stored(c.broker.Publish(context.Background(), []*driver.Message{m})) {
			c.say("published", m.ID)
		} else {
			c.say("refused", m.ID)
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func (c *child) consume() {
	for {
		ds, err := c.sub.Receive(context.Background(), 64)
		must(err)
		for _, d := range ds {
			go c.run(d)
		}
	}
}

// run runs one delivery as core would.
func (c *child) run(d *driver.Delivery) {
	u := &driver.Update{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq, Attempt: d.Attempt, State: driver.Success, TTL: time.Hour,
		Once: d.Once, Body: []byte("result of " + d.ID)}
	s := driver.Settlement{Delivery: d, Record: u}
	what := "started"
	if d.Count > 1 {
		what = "again"
	}
	switch n := rand.IntN(10); {
	case d.NoRecord:
		s.Record = nil
		if what = "once"; d.Count > 1 {
			what = "lost"
		}
	case d.Once:
		gs, err := c.backend.Start(context.Background(), []driver.Start{start(d)})
		if !stored(err) || errors.Is(gs[0].Err, driver.ErrFull) {
			return
		}
		if gs[0].Err != nil {
			what, u.State = "lost", driver.Failure
		} else {
			what, u.Run = "once", gs[0].Run
		}
	case n == 0 && d.Seq < 3: // fails, to be tried again
		next := d.Message.Clone()
		next.Seq++
		u.State, u.Next, s.Then = driver.Retry, next, []*driver.Message{next}
	case n == 1: // fails for good
		s = deadLetter(d)
		u = s.Record
	}
	c.say(what, d.ID)
	if !stored(c.sub.Settle(context.Background(), []driver.Settlement{s})) {
		return
	}
	if u.State != driver.Retry {
		c.say("settled", d.ID)
		c.tidy(d, u.State)
	}
}

// deadLetter sends d to the dead letters.
func deadLetter(d *driver.Delivery) driver.Settlement {
	info := &driver.DeadInfo{Reason: driver.ReasonFailed, Message: "no"}
	m := d.Message.Clone()
	m.Seq, m.Dead = m.Seq+1, info
	return driver.Settlement{Delivery: d, Then: []*driver.Message{m}, Record: &driver.Update{ID: d.ID, Epoch: d.Epoch,
		Seq: d.Seq, Attempt: d.Attempt, State: driver.DeadLettered, Error: info, TTL: time.Hour}}
}

// tidy deletes some dead letters and records.
func (c *child) tidy(d *driver.Delivery, state driver.State) {
	if state == driver.DeadLettered {
		c.say("dead", d.ID)
		if rand.IntN(3) == 0 {
			c.say("burying", d.ID)
			_, err := c.broker.DeadLetters("q").Delete(context.Background(), []driver.DeadKey{d.Key()})
			if stored(err) {
				c.say("buried", d.ID)
			}
		}
	}
	if !d.NoRecord && rand.IntN(8) == 0 {
		c.say("deleting", d.ID)
		_, err := c.backend.Delete(context.Background(), []string{d.ID})
		if stored(err) {
			c.say("deleted", d.ID)
		}
	}
}
