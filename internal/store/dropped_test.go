package store

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// A ledger is a journal in RAM of records only. While it is full it refuses.
type ledger struct {
	mu      sync.Mutex
	records map[string]kept
	full    bool
	commits chan func()
}

type kept struct {
	record  *driver.Record
	expires int64
}

type ledgerStep struct {
	ledger *ledger
	writes []func()
}

func (j *ledger) Begin(string) Step { return &ledgerStep{ledger: j} }
func (j *ledger) Record(_, id string) (*driver.Record, int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	v := j.records[id]
	if v.record == nil {
		return nil, 0
	}
	c := *v.record
	return &c, v.expires
}
func (j *ledger) Envelope(string, uint64) []byte      { return nil }
func (j *ledger) Dead(string, uint64) *driver.Message { return nil }
func (j *ledger) Expired(_ string, t int64, f func(string)) {
	j.mu.Lock()
	var ids []string
	for id, v := range j.records {
		if v.expires != 0 && v.expires < t {
			ids = append(ids, id)
		}
	}
	j.mu.Unlock()
	for _, id := range ids {
		f(id)
	}
}
func (s *ledgerStep) PutTask(*Task)                   {}
func (s *ledgerStep) DropTask(uint64)                 {}
func (s *ledgerStep) PutDeaths(uint64, int)           {}
func (s *ledgerStep) PutDead(uint64, *driver.Message) {}
func (s *ledgerStep) DropDead(uint64)                 {}
func (s *ledgerStep) PutLease(string, time.Duration)  {}
func (s *ledgerStep) PutKey(string, []byte, int64)    {}
func (s *ledgerStep) DropKey(string)                  {}
func (s *ledgerStep) PutRecord(r *driver.Record, at int64) {
	c := *r
	s.writes = append(s.writes, func() { s.ledger.records[c.ID] = kept{&c, at} })
}
func (s *ledgerStep) DropRecord(id string) {
	s.writes = append(s.writes, func() { delete(s.ledger.records, id) })
}
func (s *ledgerStep) Commit(_ bool, done func(error)) {
	s.ledger.commits <- func() {
		s.ledger.mu.Lock()
		var err error
		if s.ledger.full {
			err = driver.Transient(driver.ErrFull)
		} else {
			for _, w := range s.writes {
				w()
			}
		}
		s.ledger.mu.Unlock()
		if done != nil {
			done(err)
		}
	}
}

// TestDropRefused has a journal refuse to drop what has expired. It is dropped later.
func TestDropRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		j := &ledger{records: map[string]kept{}, commits: make(chan func(), 1000)}
		go func() {
			for commit := range j.commits {
				commit()
			}
		}()
		defer close(j.commits)
		b := New(Options{Driver: "test", Journal: j}).Backend("ns")
		u := driver.Update{ID: "a", Run: 1, State: driver.Success, TTL: time.Minute}
		if err := b.Apply(t.Context(), []driver.Update{u}); err != nil {
			t.Fatal(err)
		}
		for _, full := range []bool{false, true, false} {
			time.Sleep(time.Hour) // the skeleton stays for two
			j.mu.Lock()
			j.full = full
			j.mu.Unlock()
		}
		time.Sleep(24 * time.Hour)
		j.mu.Lock()
		defer j.mu.Unlock()
		if len(j.records) > 0 {
			t.Errorf("%v has expired and is still there", j.records)
		}
		b.Close(t.Context())
	})
}
