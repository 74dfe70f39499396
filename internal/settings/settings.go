package settings

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Prefix starts the name of every environment variable.
const Prefix = "CHICORY_"

// FileVariable names the configuration file, a flat JSON object.
const FileVariable = Prefix + "CONFIG"

// Settings are the values found. The zero value has only the environment.
type Settings struct{ file map[string]any }

// Load reads the file that CHICORY_CONFIG names, if it is set.
func Load() (Settings, error) {
	path := os.Getenv(FileVariable)
	if path == "" {
		return Settings{}, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Settings{}, fmt.Errorf("%s: %w", FileVariable, err)
	}
	var s Settings
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&s.file); err != nil {
		return Settings{}, fmt.Errorf("%s: %s: %w", FileVariable, path, err)
	}
	return s, nil
}

// Lookup returns the value of key, such as "broker_url", from the environment
// (CHICORY_BROKER_URL) or the file.
func (s Settings) Lookup(key string) (string, bool) {
	if v, ok := os.LookupEnv(Prefix + strings.ToUpper(key)); ok && v != "" {
		return v, true
	}
	switch v := s.file[key].(type) {
	case nil:
		return "", false
	case string:
		return v, true
	case []any: // as in "queues": ["images=3", "mail"]
		var parts []string
		for _, part := range v {
			parts = append(parts, fmt.Sprint(part))
		}
		return strings.Join(parts, ","), true
	default:
		return fmt.Sprint(v), true
	}
}

// String sets *v to key's value if *v is empty.
func (s Settings) String(key string, v *string) {
	if found, ok := s.Lookup(key); ok && *v == "" {
		*v = found
	}
}

// Int sets *v to key's value if *v is zero.
func (s Settings) Int(key string, v *int) error {
	return parse(s, key, v, strconv.Atoi)
}

// Duration sets *v to key's value, such as "25s", if *v is zero.
func (s Settings) Duration(key string, v *time.Duration) error {
	return parse(s, key, v, time.ParseDuration)
}

// Bool sets *v to key's value if it is set.
func (s Settings) Bool(key string, v *bool) error {
	return parse(s, key, v, strconv.ParseBool)
}

func parse[T comparable](s Settings, key string, v *T, conv func(string) (T, error)) error {
	var zero T
	found, ok := s.Lookup(key)
	if !ok || *v != zero {
		return nil
	}
	x, err := conv(found)
	if err != nil {
		return fmt.Errorf("%s%s: %w", Prefix, strings.ToUpper(key), err)
	}
	*v = x
	return nil
}
