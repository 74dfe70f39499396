package chicorytest_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/chicorytest"
)

func ExampleContext() {
	handler := func(ctx context.Context, width int) (string, error) {
		task, _ := chicory.TaskFrom(ctx)
		return fmt.Sprintf("%d pixels, attempt %d of %d for %s", width, task.Attempt, task.MaxAttempts, task.Headers["user"]), nil
	}
	ctx := chicorytest.Context(context.Background(), chicory.TaskInfo{Attempt: 2, Headers: map[string]string{"user": "ann"}})
	fmt.Println(handler(ctx, 640))
	// Output: 640 pixels, attempt 2 of 4 for ann <nil>
}

func ExampleKit() {
	var t *testing.T // of the test
	synctest.Test(t, func(t *testing.T) {
		kit := chicorytest.New(t, chicorytest.Options{})
		greet := chicory.Register(kit.App, "greet", func(_ context.Context, name string) (string, error) {
			return "hello " + name, nil
		})
		res := chicory.Must(greet.Delay(t.Context(), "ann", chicory.After(24*time.Hour)))
		kit.Advance(24 * time.Hour)
		if got, err := res.Get(t.Context()); got != "hello ann" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}
