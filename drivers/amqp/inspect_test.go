package amqp_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chicory-go/chicory/drivers/amqp"
)

// TestInspectDeaf has the server not answer any more when all is counted: nobody waits.
func TestInspectDeaf(t *testing.T) {
	t.Parallel()
	p, b := openThrough(t)
	if err := b.Publish(background, append(messages(3, "q"), letters(1, "q")...)); err != nil {
		t.Fatal(err)
	}
	p.deafen(method(20, 40), 2) // the first two channels are closed with an error: a queue is not there
	begin := time.Now()
	stats := must(b.Inspect(background, []string{"q"}))(t)[0]
	if stats.Ready != 3 || stats.Dead != 1 {
		t.Errorf("got %+v, want 3 ready and 1 dead", stats)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	select {
	case <-p.met:
	case <-time.After(patience):
		t.Fatal("the channel was not closed")
	}
}

// TestManagement counts with the management API: what is leased, and queues of others.
func TestManagement(t *testing.T) {
	t.Parallel()
	api := must(freeAddr())(t)
	s := newServer(t)
	s.stop()
	if err := os.WriteFile(filepath.Join(s.dir, "plugins"), []byte("[rabbitmq_management]."), 0o600); err != nil {
		t.Fatal(err)
	}
	s.configure(t, "management.tcp.ip = 127.0.0.1", "management.tcp.port = "+api[len("127.0.0.1:"):], "collect_statistics_interval = 500")
	if err := s.start(); err != nil {
		t.Fatal(err)
	}
	o := &amqp.Options{Prefix: ownPrefix(), Management: "http://" + api}
	b := open(t, s.url("guest:guest", "/"), o)
	other := open(t, s.url("guest:guest", "/"), &amqp.Options{Prefix: o.Prefix})
	if err := other.Publish(background, append(messages(5, "ü#"), messages(1, "b")...)); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, other, 2, "ü#")
	held := receive(t, sub, 2)
	defer ack(t, sub, held...)
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		queues := must(b.Queues(background))(t)
		stats := must(b.Inspect(background, []string{"ü#"}))(t)[0]
		if slices.Equal(queues, []string{"b", "ü#"}) && stats.Ready == 3 && stats.Leased == 2 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("got %q and %+v, want two queues, 3 ready, 2 leased", queues, stats)
		}
	}
}
