package validate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/validate"
)

type Signup struct {
	Email string `validate:"required,email"`
	Age   int    `validate:"min=18"`
}

func Example() {
	ctx := context.Background()
	app := chicory.Must(chicory.New(chicory.Config{URL: "memory:", Validator: validate.Tags, Logger: slog.New(slog.DiscardHandler)}))
	defer app.Close()
	signup := chicory.Define[Signup, chicory.None]("signup").On(app)
	if err := app.Connect(ctx); err != nil {
		fmt.Println(err)
	}
	_, err := signup.Send(ctx, Signup{Email: "ada@example.org", Age: 36})
	fmt.Println(err)
	_, err = signup.Send(ctx, Signup{Email: "ada@example.org", Age: 3}) // is not enqueued
	fmt.Println(errors.Is(err, chicory.ErrValidation))
	fmt.Println(err)
	// Output:
	// <nil>
	// true
	// chicory: argument of signup refused: Key: 'Signup.Age' Error:Field validation for 'Age' failed on the 'min' tag
}
