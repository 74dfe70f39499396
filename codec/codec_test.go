package codec

import (
	"errors"
	"reflect"
	"testing"
)

type inner struct{ X []string }
type value struct {
	A int
	B map[string]inner
	C *float64
}

func TestJSONRoundTripKeepsNestedTypes(t *testing.T) {
	t.Parallel()
	f := 1.5
	want := value{A: 7, B: map[string]inner{"k": {[]string{"ü", ""}}}, C: &f}
	b, err := JSON.Append([]byte("head"), want)
	if err != nil || string(b[:4]) != "head" {
		t.Fatalf("Append: %q, %v", b, err)
	}
	var got value
	if err := JSON.Decode(b[4:], &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if b, err := JSON.Append([]byte("head"), make(chan int)); err == nil || string(b) != "head" {
		t.Errorf("Append of a channel: %q, %v; want an error and dst unchanged", b, err)
	}
}

func TestStrictRefusesWhatTolerantIgnores(t *testing.T) {
	t.Parallel()
	in := []byte(`{"A":1,"Later":2}`)
	var v value
	if err := JSON.Decode(in, &v); err != nil || v.A != 1 {
		t.Errorf("tolerant: %+v, %v", v, err)
	}
	strict := JSON.(Stricter).Strict()
	if err := strict.Decode(in, &v); err == nil {
		t.Error("strict accepted an unknown field")
	}
	if err := strict.Decode([]byte(`{"A":1} {"A":2}`), &v); err == nil {
		t.Error("strict accepted data after the value")
	}
	if err := strict.Decode([]byte(`{"A":3}`), &v); err != nil || v.A != 3 {
		t.Errorf("strict: %+v, %v", v, err)
	}
	if strict.ContentType() != JSON.ContentType() {
		t.Error("strict and tolerant differ on the wire")
	}
}

type fake struct{ Codec }

func (fake) ContentType() string { return "x/fake" }

func TestRegisterAndLookup(t *testing.T) {
	t.Parallel()
	if _, err := Lookup("x/none"); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v, want ErrUnknown", err)
	}
	Register(fake{JSON})
	if c, err := Lookup("x/fake"); err != nil || c.ContentType() != "x/fake" {
		t.Errorf("got %v, %v", c, err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a second codec of one content type did not panic")
		}
	}()
	Register(fake{JSON})
}
