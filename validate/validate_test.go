package validate_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/go-playground/validator/v10"

	"github.com/chicory-go/chicory/validate"
)

type line struct {
	Count int `validate:"min=1"`
}

type order struct {
	Email string `validate:"required,email"`
	Lines []line `validate:"dive"`
	Line  line   `validate:"required"`
}

func TestTags(t *testing.T) {
	t.Parallel()
	good := order{"a@example.org", []line{{1}}, line{2}}
	var none *order
	pointer := &good
	for name, v := range map[string]any{
		"struct": good, "pointer": &good, "pointer to a pointer": &pointer, "slice": []order{good}, "map": map[string]order{"a": good},
		"array": [1]line{{1}}, "nil": nil, "nil pointer": none, "number": 7, "text": "", "bytes": []byte("x"), "empty slice": []order(nil),
		"slice of numbers": []int{0}, "map of anything": map[string]any{"a": 1, "b": nil},
	} {
		if err := validate.Tags(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, v := range map[string]any{
		"field": order{"nobody", nil, line{1}}, "nested slice": order{"a@example.org", []line{{0}}, line{1}},
		"nested struct": order{"a@example.org", nil, line{0}}, "pointer": &order{}, "slice": []line{{1}, {0}}, "map": map[string]line{"a": {0}},
		"slice of pointers": []*line{{0}}, "pointer to a slice": &[]line{{0}}, "map of anything": map[string]any{"a": line{0}},
	} {
		var fields validator.ValidationErrors
		if err := validate.Tags(v); !errors.As(err, &fields) {
			t.Errorf("%s: got %v, want a refusal that names the fields", name, err)
		}
	}
}

func TestWith(t *testing.T) {
	t.Parallel()
	v := validator.New()
	v.SetTagName("check")
	err := v.RegisterValidation("colour", func(f validator.FieldLevel) bool {
		return slices.Contains([]string{"red", "green"}, f.Field().String())
	})
	if err != nil {
		t.Fatal(err)
	}
	type car struct {
		Colour string `check:"colour" validate:"max=1"`
	}
	check := validate.With(v)
	if err := check(car{"red"}); err != nil {
		t.Error(err)
	}
	if err := check(car{"loud"}); err == nil {
		t.Error("a function of the validator was not asked")
	}
}
