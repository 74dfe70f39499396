package config_test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/config"
	_ "github.com/chicory-go/chicory/drivers/all"
	"github.com/chicory-go/chicory/internal/settings"
	"github.com/chicory-go/chicory/worker"
)

// secret is what no error may tell.
const secret = "s3cr3t-Pa55word"

// wantNoSecret checks an error of what was configured.
func wantNoSecret(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), secret) {
		t.Errorf("a password is told: %v", err)
	}
}

// FuzzURL gives URLs to all drivers: they are accepted, or refused without a panic and
// without telling the password.
func FuzzURL(f *testing.F) {
	for _, scheme := range []string{"memory", "bolt", "redis", "rediss", "unix", "amqp", "amqps", "nats", ""} {
		f.Add(scheme, "user", "localhost:6379/1", "max=10&maxsize=1GiB")
		f.Add(scheme, "", "host/%2F", "prefix=a&ca_file=x&queue=classic&addr=other:1")
		f.Add(scheme, "%zz", "[::1]:port", "max=-1&max=2&db=x;y")
	}
	f.Fuzz(func(t *testing.T, scheme, user, host, query string) {
		for _, raw := range []string{
			scheme + "://" + user + ":" + secret + "@" + host + "?" + query,
			scheme + "://" + user + ":" + secret, // its host is missing
			scheme + ":" + host + "?" + query,
			host,
		} {
			app, err := chicory.New(chicory.Config{URL: raw})
			if err == nil {
				app.Close()
			}
			// Elsewhere it would be no password.
			u, failed := url.Parse(raw)
			if failed == nil {
				if password, _ := u.User.Password(); password != secret {
					continue
				}
			}
			wantNoSecret(t, err)
		}
	})
}

// FuzzFile loads files: what is accepted makes an app or an error, never a panic.
func FuzzFile(f *testing.F) {
	for _, text := range []string{"", "url = 'memory:'", "url = 'redis://:" + secret + "@host'\nqueues = ['a=3', 'b']\ntimeout = '90s' # c",
		"url = redis://:" + secret + "@host", "[worker]\nconcurrency = 1", "queues = [[1], 2.5, 2020-01-01]", "a.b.c = 1\nurl.x = 2",
		"backoff = 'exponential 1s 5m factor=3 jitter=0.5'\nmax_retries = 0\ndlq = false", "\"url\" = '''\nmemory:'''"} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "chicory.toml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(path)
		if err != nil {
			if !errors.Is(err, chicory.ErrValidation) || !strings.Contains(err.Error(), path+":") {
				t.Errorf("got %v, want where in %s", err, path)
			}
			return
		}
		if app, err := chicory.New(c.App); err == nil {
			worker.New(app, c.Worker)
			app.Close()
		}
	})
}

// FuzzValue gives texts to the keys: each is accepted, or refused by its name.
func FuzzValue(f *testing.F) {
	for name, sample := range samples {
		f.Add(name, sample.text)
		f.Add(name, "-1")
		f.Add(name, "9223372036854775807")
		f.Add(name, "redis://:"+secret+"@host:x")
	}
	f.Fuzz(func(t *testing.T, name, text string) {
		if settings.Find(name) == nil {
			return
		}
		values := settings.Values{name: {Texts: []string{text}, From: "HERE"}}
		for _, dst := range []any{&chicory.Config{}, &worker.Options{}} {
			err := values.Fill(dst, false)
			if err != nil && !strings.HasPrefix(err.Error(), "HERE ") {
				t.Errorf("%s = %q: got %v, want where it is from", name, text, err)
			}
			if strings.Contains(text, "@") {
				wantNoSecret(t, err)
			}
		}
	})
}
