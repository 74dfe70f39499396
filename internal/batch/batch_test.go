package batch

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory/driver"
)

func TestIdleCallerFlushesAlone(t *testing.T) {
	t.Parallel()
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "mine")
	b := New(t.Context(), 10, func(ctx context.Context, items []int) error {
		if ctx.Value(key{}) != "mine" || len(items) != 1 {
			t.Errorf("got %d items under a foreign context, want the caller's own", len(items))
		}
		return nil
	}, nil)
	if err := b.Do(ctx, 1); err != nil {
		t.Fatal(err)
	}
	b.Close()
}

func TestItemsPileUpBehindAFlush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		b := New(t.Context(), 8, func(_ context.Context, items []int) error {
			time.Sleep(time.Second)
			sizes = append(sizes, len(items))
			errs := make([]error, len(items))
			for i, it := range items {
				if it == 13 {
					errs[i] = driver.ErrTooLarge
				}
			}
			return driver.Batch(errs)
		}, nil)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				err := b.Do(t.Context(), i)
				if (i == 13) != errors.Is(err, driver.ErrTooLarge) {
					t.Errorf("item %d: got %v", i, err)
				}
			})
		}
		wg.Wait()
		total := 0
		for _, n := range sizes {
			total += n
		}
		if len(sizes) > 4 || total != 20 {
			t.Errorf("batches %v: want 20 items in 1 + 8 + 8 + 3", sizes)
		}
	})
}

func TestCallerObeysItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := New(t.Context(), 8, func(ctx context.Context, _ []int) error {
			time.Sleep(time.Hour)
			return nil
		}, nil)
		go b.Do(t.Context(), 1)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Do(ctx, 2); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the deadline", err)
		}
		b.Close()
	})
}

func TestCloseWaitsAndRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		done := false
		answers := map[int]error{}
		b := New(t.Context(), 8, func(context.Context, []int) error {
			time.Sleep(time.Second)
			done = true
			return nil
		}, func(item int, err error) { answers[item] = err })
		b.Go(1)
		b.Close()
		if !done {
			t.Error("Close did not wait for the flush in progress")
		}
		if err := b.Do(t.Context(), 2); !errors.Is(err, driver.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
		b.Go(3)
		synctest.Wait()
		if err, ok := answers[1]; err != nil || !ok || !errors.Is(answers[3], driver.ErrClosed) {
			t.Errorf("got %v, want nil for the first and ErrClosed for the second", answers)
		}
	})
}
