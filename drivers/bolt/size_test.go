package bolt_test

import (
	"flag"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/bolt"
	"github.com/google/uuid"
)

// publishSized publishes n tracked messages of size bytes, in calls of 1000.
func publishSized(p *pair, n, size int) {
	p.t.Helper()
	for n > 0 {
		msgs := make([]*driver.Message, min(n, 1000))
		for i := range msgs {
			msgs[i] = tracked(uuid.Must(uuid.NewV7()).String())
			msgs[i].Envelope = make([]byte, size)
		}
		p.publish(msgs...)
		n -= len(msgs)
	}
}

// workOff settles n messages with their results.
func workOff(p *pair, n int) {
	p.t.Helper()
	for n > 0 {
		var ss []driver.Settlement
		for _, d := range p.receive(min(n, 1000)) {
			ss = append(ss, driver.Settlement{Delivery: d, Record: &driver.Update{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq,
				Attempt: d.Attempt, State: driver.Success, Body: make([]byte, 32), TTL: time.Hour}})
		}
		p.settle(ss...)
		n -= len(ss)
	}
}

// BenchmarkSize measures what a task with an envelope of 100 bytes takes on the
// disk, pending and, with a result of 32 bytes, done. Say -benchtime 1000000x.
func BenchmarkSize(b *testing.B) {
	for name, done := range map[string]bool{"pending": false, "done": true} {
		b.Run(name, func(b *testing.B) {
			p := newPair(b, nil)
			for left := b.N; left > 0; left -= 1000 {
				publishSized(p, min(left, 1000), 100)
				if done {
					workOff(p, min(left, 1000))
				}
			}
			used, err := bolt.Used(p.path)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(used)/float64(b.N), "B/task")
			b.ReportMetric(0, "ns/op")
		})
	}
}

var growth = flag.Int("bolt.growth", 40000, "tasks that TestGrowth passes through a file")

// TestGrowth passes tasks through a file, whose results expire: in the end it
// grows no more. In its bubble a tenth of the tasks takes as long as a record
// and its skeleton live. A long run is
//
//	go test -v -run TestGrowth -timeout 0 ./drivers/bolt -args -bolt.growth=2000000
func TestGrowth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		const rounds, parts = 10, 20
		n := *growth / rounds
		var sizes []int64
		for i := range rounds {
			for range parts {
				publishSized(p, n/parts, 100)
				workOff(p, n/parts)
				time.Sleep((time.Hour + driver.SkeletonAge) / parts)
			}
			info, err := os.Stat(p.path)
			if err != nil {
				t.Fatal(err)
			}
			used, err := bolt.Used(p.path)
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, used)
			t.Logf("%8d tasks: %6.1f MiB, of which %6.1f were ever in use", (i+1)*n, float64(info.Size())/(1<<20), float64(used)/(1<<20))
		}
		if half, end := sizes[rounds/2], sizes[rounds-1]; end > half+half/20 {
			t.Errorf("the file still grows: %d bytes after a half, %d in the end", half, end)
		}
	})
}
