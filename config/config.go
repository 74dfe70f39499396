package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/internal/settings"
	"github.com/chicory-go/chicory/worker"
	"github.com/pelletier/go-toml/v2"
)

const maxFile = 1 << 20 // bytes

//go:generate go test -run TestTable -args -update

// A Config is what environment and file say. What they leave open is zero, which is the
// default.
type Config struct {
	App    chicory.Config
	Worker worker.Options
}

// Load reads the environment and the file that CHICORY_CONFIG names, or else path; an
// empty path is no file. A file that is not there is an error. So are unknown keys and
// variables, and values that are not what is wanted: the error names all of them, each
// with its place, matches chicory.ErrValidation and holds no password. Load does not
// look for drivers and stores: chicory.New and Connect do. It is safe for concurrent
// use.
//
// If a log level is set, Worker.Logger writes text of that level to standard error.
func Load(path string) (Config, error) {
	var c Config
	env, err := settings.Environment()
	errs := []error{err}
	file, err := readFile(cmp.Or(os.Getenv(settings.FileVariable), path))
	errs = append(errs, err)
	settings.FileRead.Store(true)

	// The file alone: the environment must not hide what is wrong there.
	if _, err := new(Config).fill(file); err != nil {
		errs, file = append(errs, err), nil
	}
	level, err := c.fill(env.Over(file))
	if err := errors.Join(append(errs, err)...); err != nil {
		return Config{}, fmt.Errorf("%w: configuration:\n%w", chicory.ErrValidation, err)
	}
	if level != nil {
		c.Worker.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	}
	return c, nil
}

// fill sets the fields of an empty c, and returns the level of logs, or nil.
func (c *Config) fill(values settings.Values) (slog.Leveler, error) {
	var level slog.Level
	leveled, err := values.Read(settings.KeyLogLevel, &level)
	err = errors.Join(values.Fill(&c.App, false), values.Fill(&c.Worker, false), err)
	if !leveled {
		return nil, err
	}
	return level, err
}

func readFile(path string) (settings.Values, error) {
	if path == "" {
		return settings.Values{}, nil
	}
	text, err := settings.ReadFile(path, maxFile)
	if err != nil {
		return settings.Values{}, fmt.Errorf("configuration file: %w", err)
	}
	return parse(path, text)
}

// parse reads TOML. What it returns is never nil.
func parse(path string, text []byte) (settings.Values, error) {
	values := settings.Values{}
	var found map[string]any
	if err := toml.Unmarshal(text, &found); err != nil {
		return values, malformed(path, err)
	}
	line := lines(text)
	var errs []error
	var unknown error // settings.ErrKeys if there is one
	byLine := func(a, b string) int { return cmp.Or(line[a]-line[b], strings.Compare(a, b)) }
	for _, name := range slices.SortedFunc(maps.Keys(found), byLine) {
		where := fmt.Sprintf("%s:%d: %s", path, line[name], settings.Shown(name, "a key that may be a URL"))
		texts, isList, ok := scalars(found[name])
		switch {
		case settings.Find(name) == nil:
			errs, unknown = append(errs, settings.Unknown(where, name)), settings.ErrKeys
		case !ok:
			errs = append(errs, fmt.Errorf("%s is no text, number or list of them: want %s", where, settings.Find(name).Want()))
		default:
			values[name] = settings.Value{Texts: texts, IsList: isList, From: where}
		}
	}
	return values, errors.Join(append(errs, unknown)...)
}

// malformed says where a file is no TOML, without repeating what stands there.
func malformed(path string, err error) error {
	var at *toml.DecodeError
	if !errors.As(err, &at) {
		return fmt.Errorf("%s is no TOML", path)
	}
	row, column := at.Position()
	return fmt.Errorf("%s:%d:%d: it is no TOML here; a text stands in quotes, a comment after #, a key once", path, row, column)
}

// lines returns where the keys of a file are: decoding them into a struct that has none
// of them says so.
func lines(text []byte) map[string]int {
	at := map[string]int{}
	var missing *toml.StrictMissingError
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&struct{}{}); errors.As(err, &missing) {
		for _, e := range missing.Errors {
			row, _ := e.Position()
			if key := e.Key(); len(key) > 0 && at[key[0]] == 0 {
				at[key[0]] = row
			}
		}
	}
	return at
}

// scalars returns the text of a value, or those of a list.
func scalars(value any) (texts []string, isList, ok bool) {
	switch v := value.(type) {
	case string, bool, int64, float64:
		return []string{fmt.Sprint(v)}, false, true
	case []any:
		for _, one := range v {
			text, nested, ok := scalars(one)
			if nested || !ok {
				return nil, true, false
			}
			texts = append(texts, text...)
		}
		return texts, true, true
	}
	return nil, false, false
}
