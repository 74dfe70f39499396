package chicorytest

import (
	"context"
	"reflect"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
)

// A Message is a task as it was sent.
type Message[In any] struct {
	ID         string
	Queue      string
	Args       In // decoded, as the handler gets it
	Headers    map[string]string
	Priority   int
	Delay      time.Duration // of After and At; 0: due at once
	Expires    time.Time     // of ExpiresIn and ExpiresAt; zero: never
	AtMostOnce bool
	At         time.Time // when it was sent
}

// A sending is a message that the broker has stored.
type sending struct {
	message *driver.Message
	name    string
	at      time.Time
}

// appBroker is the broker of the app: it notes what is sent.
type appBroker struct {
	driver.Broker
	kit *Kit
}

func (b *appBroker) Unwrap() any { return b.Broker }

func (b *appBroker) Publish(ctx context.Context, ms []*driver.Message) error {
	err := b.Broker.Publish(ctx, ms)
	b.kit.mu.Lock()
	defer b.kit.mu.Unlock()
	for i, m := range ms {
		if driver.ItemError(err, i, len(ms)) == nil {
			b.kit.sent = append(b.kit.sent, sending{m.Clone(), taskName(m.Envelope), time.Now()})
		}
	}
	return err
}

// Sent returns what was sent to task since the kit began, by the test, the code
// under test or handlers, in its order; whether it has run does not matter.
// Retries and replays are no sending. A definition is given as def.On(kit.App).
func Sent[In, Out any](k *Kit, task *chicory.Task[In, Out]) []Message[In] {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	var found []Message[In]
	for _, s := range k.sent {
		if s.name != task.Name() {
			continue
		}
		m := Message[In]{ID: s.message.ID, Queue: s.message.Queue, Priority: int(s.message.Priority),
			Delay: s.message.Delay, AtMostOnce: s.message.Once, At: s.at}
		if s.message.Deadline != 0 {
			m.Expires = time.UnixMilli(s.message.Deadline)
		}
		var env engine.Envelope
		err := engine.DecodeEnvelope(s.message.Envelope, &env)
		if err == nil {
			m.Headers = env.Headers
			err = k.decode(&env, &m.Args)
		}
		if err != nil {
			k.t.Fatalf("chicorytest: argument of %s (%s): %v", s.name, m.ID, err)
		}
		found = append(found, m)
	}
	return found
}

func (k *Kit) decode(env *engine.Envelope, args any) error {
	c := &k.opts.Config
	decoder, err := codec.Lookup(env.ContentType, append([]codec.Codec{c.Codec}, c.Codecs...)...)
	if err != nil {
		return err
	}
	return decoder.Decode(env.Body, args)
}

// AssertSent fails the test unless task was sent with these arguments, in this
// order, and with no others; without any, unless it was not sent.
func AssertSent[In, Out any](k *Kit, task *chicory.Task[In, Out], want ...In) {
	k.t.Helper()
	var got []In
	for _, m := range Sent(k, task) {
		got = append(got, m.Args)
	}
	if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		k.t.Errorf("%s was sent with\n%+v, want\n%+v", task.Name(), got, want)
	}
}

// AssertState fails the test unless the record of the task says want.
func (k *Kit) AssertState(id string, want chicory.State) {
	k.t.Helper()
	r := k.record(id)
	switch {
	case r == nil:
		k.t.Errorf("task %s has no record, want %s", id, want)
	case r.State != want && r.Error != nil:
		k.t.Errorf("task %s is %s after attempt %d (%s: %s), want %s", id, r.State, r.Attempt, r.Error.Reason, r.Error.Message, want)
	case r.State != want:
		k.t.Errorf("task %s is %s, want %s", id, r.State, want)
	}
}

// record returns the record of a task, nil if there is none.
func (k *Kit) record(id string) *driver.Record {
	k.t.Helper()
	if k.watch == nil {
		return nil
	}
	rs, err := k.watch.Get(context.Background(), []string{id})
	if err != nil {
		k.t.Fatalf("chicorytest: %v", err)
	}
	return rs[0]
}

// AssertDeadLetter fails the test unless the task is among the dead letters for
// that reason: "failed", "poison", "lost", "undecodable", "validation" or
// "unknown_task".
func (k *Kit) AssertDeadLetter(id, reason string) {
	k.t.Helper()
	d, err := k.App.DeadLetters(k.queueOf(id)).Get(context.Background(), id)
	switch {
	case err != nil:
		k.t.Errorf("dead letter %s: %v", id, err)
	case d.Reason != reason:
		k.t.Errorf("dead letter %s: reason is %s (%s), want %s", id, d.Reason, d.Message, reason)
	}
}

// queueOf returns the queue that a task was sent to.
func (k *Kit) queueOf(id string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.sent {
		if s.message.ID == id {
			return s.message.Queue
		}
	}
	return k.opts.Config.Queue
}
