package settings

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
)

// Prefix starts the name of every environment variable.
const Prefix = "CHICORY_"

// FileVariable names the configuration file.
const FileVariable = Prefix + "CONFIG"

// fileSuffix, after the variable of a key that may hold a password, names a file that
// holds the value, as secrets of Docker and Kubernetes are.
const fileSuffix = "_FILE"

const maxSecret = 64 << 10 // bytes of such a file

// A Value is what a source says of one key.
type Value struct {
	Texts  []string // one, unless it is a list
	IsList bool     // a list, rather than a text that may name several with commas
	From   string   // where it says so, and how the key is called there

	file string // it has the text, and is read once that is needed; or empty
}

// Values are what a source says, by the name of the key.
type Values map[string]Value

// FileRead is set once package config has looked at the file.
var FileRead atomic.Bool

// withoutFile counts the calls of WithoutFile that run.
var withoutFile atomic.Int32

// WithoutFile calls f, during which Load does not mind a file that nobody reads. It is for
// package chicorytest.
func WithoutFile(f func()) {
	withoutFile.Add(1)
	defer withoutFile.Add(-1)
	f()
}

// Load returns what the environment says. Its error also says if there is a file that
// nobody reads.
func Load() (Values, error) {
	values, err := Environment()
	if os.Getenv(FileVariable) != "" && !FileRead.Load() && withoutFile.Load() == 0 {
		err = errors.Join(err, fmt.Errorf("%s names a file, which this program does not read: it must call config.Load", FileVariable))
	}
	return values, err
}

// Environment returns what the environment says. An empty variable says nothing. Files of
// secrets are not read yet. The error names all variables with the prefix that are none of ours.
func Environment() (Values, error) {
	values := Values{}
	var errs []error
	var unknown error // ErrKeys if there is one
	for _, kv := range os.Environ() {
		name, text, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, Prefix) || text == "" || name == FileVariable || ofKubernetes(name) {
			continue
		}
		k, isFile := byVariable(name)
		if k == nil {
			errs, unknown = append(errs, Unknown(Shown(name, "a variable that may hold a URL"), strings.TrimPrefix(name, Prefix))), ErrKeys
			continue
		}
		if had, ok := values[k.Name]; ok {
			errs = append(errs, fmt.Errorf("%s and %s exclude each other", min(had.From, name), max(had.From, name)))
			continue
		}
		v := Value{Texts: []string{text}, From: name}
		if isFile {
			v = Value{file: text, From: name}
		}
		values[k.Name] = v
	}
	return values, errors.Join(append(errs, unknown)...)
}

// ofKubernetes reports whether a variable is one of those by which Kubernetes tells a
// container of services whose name begins with chicory: CHICORY_SERVICE_HOST,
// CHICORY_REDIS_SERVICE_PORT_HTTP, CHICORY_PORT, CHICORY_PORT_80_TCP_ADDR.
func ofKubernetes(name string) bool {
	_, port, _ := strings.Cut(name, "_PORT_")
	isNumber := port != "" && port[0] >= '0' && port[0] <= '9'
	return isNumber || strings.HasSuffix(name, "_SERVICE_HOST") || strings.HasSuffix(name, "_PORT") || strings.Contains(name, "_SERVICE_PORT_")
}

// byVariable returns the key of a variable, and whether that names a file with its value.
func byVariable(name string) (k *Key, isFile bool) {
	for i := range Keys {
		switch k := &Keys[i]; {
		case name == k.Variable():
			return k, false
		case k.Secret && name == k.Variable()+fileSuffix:
			return k, true
		}
	}
	return nil, false
}

// Unknown is the error of a name that is no key's. More than one may stand in a list of
// errors, with one ErrKeys at its end.
func Unknown(where, name string) error {
	bare := func(name string) string { return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(name)) }
	for _, k := range Keys {
		if bare(name) == bare(k.Name) {
			return fmt.Errorf("%s is unknown; did you mean %s?", where, k.Name)
		}
	}
	return fmt.Errorf("%s is unknown", where)
}

// ErrKeys says what keys there are.
var ErrKeys = func() error {
	var all []string
	for _, k := range Keys {
		all = append(all, k.Name)
	}
	slices.Sort(all)
	return fmt.Errorf("known are %s; a variable is %s and the key in capitals", strings.Join(all, ", "), Prefix)
}()

// Over returns what vs says, and what under says beyond it. The keys of stores are all
// those of one of the two.
func (vs Values) Over(under Values) Values {
	all := Values{}
	maps.Copy(all, under)
	for name, v := range vs {
		if Find(name).store && !slices.Equal(v.Texts, []string{noStore}) {
			maps.DeleteFunc(all, func(name string, _ Value) bool { return Find(name).store })
			break
		}
	}
	maps.Copy(all, vs)
	return all
}

// Fill sets the fields of dst, a pointer to a chicory.Config or a worker.Options. A field
// that is set stays as it is, unless beat; if it is one of a store, all of those do. The
// error names all values that are wrong, but for those of fields that stay.
func (vs Values) Fill(dst any, beat bool) error {
	to := reflect.ValueOf(dst).Elem()
	keepStores := !beat && namesStore(to)
	var errs []error
	for i := range Keys {
		k := &Keys[i]
		v, ok := vs[k.Name]
		if !ok || k.store && keepStores {
			continue
		}
		for _, field := range k.Fields {
			name, ours := strings.CutPrefix(field, to.Type().Name()+".")
			if !ours {
				continue
			}
			f := to.FieldByName(name)
			if !beat && !f.IsZero() {
				continue
			}
			parsed := reflect.New(f.Type()).Elem()
			if err := k.parse(v, parsed); err != nil {
				errs = append(errs, err)
				continue
			}
			f.Set(parsed)
		}
	}
	return errors.Join(errs...)
}

// noStore is the backend that is no store: it goes with any other.
const noStore = "none"

// namesStore reports whether a field of a store is set.
func namesStore(v reflect.Value) bool {
	for _, k := range Keys {
		if !k.store {
			continue
		}
		name, ours := strings.CutPrefix(k.Fields[0], v.Type().Name()+".")
		if f := v.FieldByName(name); ours && !f.IsZero() && f.String() != noStore {
			return true
		}
	}
	return false
}

// Read parses the value of a key into dst, a pointer. It reports whether there is one.
func (vs Values) Read(name string, dst any) (bool, error) {
	v, ok := vs[name]
	if !ok {
		return false, nil
	}
	return true, Find(name).parse(v, reflect.ValueOf(dst).Elem())
}

// parse parses v into a field that is empty.
func (k *Key) parse(v Value, to reflect.Value) error {
	if v.file != "" {
		b, err := ReadFile(v.file, maxSecret)
		if err != nil {
			return fmt.Errorf("%s: %w", v.From, err)
		}
		v.Texts = []string{strings.TrimRight(string(b), "\r\n")}
	}
	texts := v.Texts
	switch several := to.Kind() == reflect.Slice; {
	case several && !v.IsList:
		texts = strings.Split(texts[0], ",")
	case v.IsList && !several:
		return fmt.Errorf("%s is a list: want %s", v.From, k.Want())
	}
	for _, text := range texts {
		if !v.IsList {
			text = strings.TrimSpace(text)
		}
		err := k.kind.put(text, to)
		var more explained
		switch {
		case errors.As(err, &more):
			return fmt.Errorf("%s: want %s: %w", k.says(v), k.Want(), more.error)
		case err != nil:
			return fmt.Errorf("%s: want %s", k.says(v), k.Want())
		}
	}
	return nil
}

// says repeats a value, unless there may be a password in it.
func (k *Key) says(v Value) string {
	s := strings.Join(v.Texts, ",")
	if s == "" && !v.IsList {
		return v.From + " is empty"
	}
	if k.Secret || MayBeURL(s) {
		return v.From + " is wrong"
	}
	return fmt.Sprintf("%s is %q", v.From, s)
}
