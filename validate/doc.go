// Package validate checks arguments and results by the struct tags of
// github.com/go-playground/validator:
//
//	type Order struct {
//		Email string `validate:"required,email"`
//		Count int    `validate:"min=1,max=100"`
//	}
//
//	app, err := chicory.New(chicory.Config{URL: "memory:", Validator: validate.Tags})
//
// It is a package of its own so that programs without such tags do not link
// that library.
package validate
