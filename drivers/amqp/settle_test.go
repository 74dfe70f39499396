package amqp_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/amqp"
)

// TestAcksInAnyOrder settles in parts of every size and in any order, several at once,
// what comes by three consumers: no ack takes what is not its own, none is refused.
func TestAcksInAnyOrder(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	o := &amqp.Options{Prefix: ownPrefix()}
	b := open(t, s.url("guest:guest", "/"), o)
	sub := subscribe(t, b, 64, "q")
	ms := messages(2000, "q")
	for _, m := range ms {
		m.Priority = uint8(rand.N(10))
	}
	kept := map[string]bool{} // that are never settled
	for _, m := range ms[:20] {
		kept[m.ID] = true
	}
	rand.Shuffle(len(ms), func(i, j int) { ms[i], ms[j] = ms[j], ms[i] })
	if err := b.Publish(background, ms); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var held, all []*driver.Delivery
	settle := func(n int) {
		part := slices.Clone(held[:n])
		held = slices.Delete(held, 0, n)
		wg.Go(func() {
			ss := make([]driver.Settlement, len(part))
			for i, d := range part {
				ss[i].Delivery = d
			}
			if err := sub.Settle(background, ss); err != nil {
				t.Errorf("settle: %v", err)
			}
		})
	}
	for len(all) < len(ms) {
		d := receive(t, sub, 1)[0]
		if all = append(all, d); !kept[d.ID] {
			held = append(held, d)
		}
		if len(held) > 30 || len(all) == len(ms) {
			rand.Shuffle(len(held), func(i, j int) { held[i], held[j] = held[j], held[i] })
			for len(held) > 0 && rand.N(8) > 0 || len(all) == len(ms) && len(held) > 0 {
				settle(1 + rand.N(len(held)))
			}
		}
	}
	wg.Wait()
	for _, d := range all {
		select {
		case <-d.Lost:
			t.Fatal("the server closed the channel")
		default:
		}
	}
	if err := b.Close(background); err != nil {
		t.Fatal(err)
	}
	again := subscribe(t, open(t, s.url("guest:guest", "/"), o), 64, "q")
	for _, d := range receive(t, again, len(kept)) {
		if !kept[d.ID] {
			t.Errorf("%s was settled and comes again", d.ID)
		}
		ack(t, again, d)
	}
	ctx, cancel := context.WithTimeout(background, time.Second)
	defer cancel()
	if ds, _ := again.Receive(ctx, 1); len(ds) > 0 {
		t.Errorf("%s came twice", ds[0].ID)
	}
}
