package validate

import (
	"reflect"

	"github.com/go-playground/validator/v10"
)

// tags is what Tags asks. It caches what it knows of types.
var tags = With(validator.New(validator.WithRequiredStructEnabled()))

// Tags checks v by its struct tags "validate", for chicory.Config.Validator. A
// struct that is refused is a validator.ValidationErrors, which names the
// fields. It looks through pointers and interfaces, and into slices, arrays and
// maps of structs; other values, nil among them, have no tags and pass. It is
// safe for concurrent use.
func Tags(v any) error { return tags(v) }

// With is Tags with a validator of one's own, which may have other tags and
// functions. It panics at a tag that v does not know; chicory takes that for a
// refusal.
func With(v *validator.Validate) func(any) error {
	return func(value any) error {
		rv := reflect.ValueOf(value)
		for rv.Kind() == reflect.Pointer || rv.Kind() == reflect.Interface {
			rv = rv.Elem()
		}
		switch rv.Kind() {
		case reflect.Struct:
			return v.Struct(rv.Interface())
		case reflect.Slice, reflect.Array, reflect.Map:
			if mayHoldStructs(rv.Type().Elem().Kind()) {
				return v.Var(rv.Interface(), "dive")
			}
		}
		return nil
	}
}

// mayHoldStructs spares the walk over bytes and numbers.
func mayHoldStructs(k reflect.Kind) bool {
	switch k {
	case reflect.Struct, reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Array, reflect.Map:
		return true
	}
	return false
}
