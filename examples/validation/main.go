// Command validation refuses bad arguments where they are sent and bad results
// where they are made.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/validate"
	"github.com/chicory-go/chicory/worker"
)

// Order is checked by its tags, and by what they cannot say.
type Order struct {
	Email string `validate:"required,email"`
	Items []Item `validate:"min=1,dive"`
}

// Item is a line of an order.
type Item struct {
	SKU   string `validate:"required"`
	Count int    `validate:"min=1,max=100"`
}

var errTwice = errors.New("an item is listed twice")

// Validate is asked before the tags are.
func (o Order) Validate() error {
	seen := map[string]bool{}
	for _, item := range o.Items {
		if seen[item.SKU] {
			return fmt.Errorf("%w: %s", errTwice, item.SKU)
		}
		seen[item.SKU] = true
	}
	return nil
}

// Receipt is a result; a price of nothing is a mistake of the handler's.
type Receipt struct {
	Cents int `validate:"gt=0"`
}

var prices = map[string]int{"tea": 350, "cup": 900}

func total(_ context.Context, o Order) (Receipt, error) {
	var r Receipt
	for _, item := range o.Items {
		r.Cents += item.Count * prices[item.SKU]
	}
	return r, nil
}

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer) error {
	app, err := chicory.New(chicory.Config{URL: "memory:", Validator: validate.Tags})
	if err != nil {
		return err
	}
	defer app.Close()
	// Strict checks arguments and results, and refuses fields that Order lacks.
	buy := chicory.Register(app, "shop.buy", total, chicory.Validation(chicory.ValidationStrict))
	stop, err := worker.New(app, worker.Options{}).Start(ctx)
	if err != nil {
		return err
	}
	defer stop()

	good := Order{Email: "ada@example.org", Items: []Item{{"tea", 2}, {"cup", 1}}}
	res, err := buy.Delay(ctx, good)
	if err != nil {
		return err
	}
	receipt, err := res.Get(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Total: %d cents\n", receipt.Cents)

	// Nothing of these is enqueued.
	_, err = buy.Delay(ctx, Order{Email: "nobody", Items: good.Items})
	var refused *chicory.ValidationError
	fmt.Fprintf(out, "Bad address: %v, the %s\n", errors.As(err, &refused), refused.Value)
	_, err = buy.Delay(ctx, Order{Email: good.Email, Items: []Item{{"tea", 1}, {"tea", 1}}})
	fmt.Fprintf(out, "Tea twice: %v\n", errors.Is(err, errTwice))

	// This one looks good; its result is refused, and it does not run again.
	if res, err = buy.Delay(ctx, Order{Email: good.Email, Items: []Item{{"air", 1}}}); err != nil {
		return err
	}
	_, err = res.Get(ctx)
	var failed *chicory.TaskError
	if !errors.As(err, &failed) {
		return fmt.Errorf("got %w, want a refused result", err)
	}
	fmt.Fprintf(out, "Air for nothing: %s, %s, attempt %d\n", failed.State, failed.Reason, failed.Attempt)
	return nil
}
