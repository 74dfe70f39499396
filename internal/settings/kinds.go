package settings

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/chicory-go/chicory/codec"
)

// A kind is what a key's values are.
type kind struct {
	want string
	// put parses a text into a field. What its error adds to want, if anything, is
	// an explained error.
	put func(text string, to reflect.Value) error
}

// An explained error says more than what is wanted.
type explained struct{ error }

var errWanted = errors.New("it is not what is wanted")

// none, as a number or a duration, is that of "none" and "forever".
const none = -1

const wantSwitch = "true or false"

var (
	address = kind{"a URL, such as redis://localhost:6379", func(text string, to reflect.Value) error {
		if _, err := ParseURL(text); err != nil {
			return explained{err}
		}
		to.SetString(text)
		return nil
	}}
	driverName = text("the name of a driver, such as redis", func(name string) error {
		if strings.ContainsAny(name, ":/@ ") {
			return errWanted
		}
		return nil
	})
	number         = whole("a whole number from 1", 1)
	numberOrNone   = whole("a whole number from 0", 0)
	boolean        = truth(true)
	inverse        = truth(false)
	durationOrZero = span("a duration such as 30s, 0 for none", "none", func(d time.Duration) bool { return d >= 0 })
	codecName      = kind{"the content type of a registered codec", func(text string, to reflect.Value) error {
		if strings.ContainsAny(text, ":@") { // a URL, which is not repeated
			return errWanted
		}
		c, err := codec.Lookup(text)
		if err != nil {
			return explained{err}
		}
		to.Set(reflect.ValueOf(c))
		return nil
	}}
	level = kind{"debug, info, warn or error", func(text string, to reflect.Value) error {
		return to.Addr().Interface().(*slog.Level).UnmarshalText([]byte(text))
	}}
)

// text is any text that check, unless it is nil, finds right.
func text(want string, check func(string) error) kind {
	return kind{want, func(text string, to reflect.Value) error {
		if check != nil {
			if err := check(text); err != nil {
				return err
			}
		}
		to.SetString(text)
		return nil
	}}
}

func oneOf(words ...string) kind {
	last := len(words) - 1
	want := strings.Join(words[:last], ", ") + " or " + words[last]
	return text(want, func(text string) error {
		if !slices.Contains(words, text) {
			return errWanted
		}
		return nil
	})
}

// whole is a whole number from least. That 0 is none, as it is not in a field.
func whole(want string, least int) kind {
	return kind{want, func(text string, to reflect.Value) error {
		n, err := strconv.Atoi(text)
		switch {
		case err != nil || n < least:
			return errWanted
		case n == 0:
			n = none
		}
		to.SetInt(int64(n))
		return nil
	}}
}

// truth is true or false, in a field that is true for yes.
func truth(yes bool) kind {
	return kind{wantSwitch, func(text string, to reflect.Value) error {
		b, err := strconv.ParseBool(text)
		to.SetBool(b == yes)
		return err
	}}
}

// duration is above 0, or a word for none.
func duration(word string) kind {
	return span("a duration such as 90s or 1h30m, or `"+word+"`", word, func(d time.Duration) bool { return d > 0 })
}

// within is a duration of whole milliseconds from least to most.
func within(least, most time.Duration) kind {
	return span(fmt.Sprintf("a duration of whole milliseconds from %v to %v", least, most), "",
		func(d time.Duration) bool { return d >= least && d <= most && d%time.Millisecond == 0 })
}

func span(want, word string, fits func(time.Duration) bool) kind {
	return kind{want, func(text string, to reflect.Value) error {
		if text == word {
			to.SetInt(none)
			return nil
		}
		d, err := time.ParseDuration(text)
		switch {
		case err != nil || !fits(d):
			return errWanted
		case d == 0:
			d = none
		}
		to.SetInt(int64(d))
		return nil
	}}
}

// itself is what the type of the field reads from a text.
func itself(want string) kind {
	return kind{want, func(text string, to reflect.Value) error {
		if to.Kind() == reflect.Slice {
			one := reflect.New(to.Type().Elem())
			err := one.Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
			to.Set(reflect.Append(to, one.Elem()))
			return err
		}
		return to.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text))
	}}
}
