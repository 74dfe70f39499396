package redis_test

import (
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/chicory-go/chicory/driver"
)

func config(t *testing.T, text string) (*driver.Config, driver.Driver) {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	_, d, err := driver.Default.Lookup(u.Scheme)
	if err != nil {
		t.Fatal(err)
	}
	return &driver.Config{URL: u, Namespace: "ns", Logger: slog.New(slog.DiscardHandler)}, d
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"redis://localhost":                        "",
		"redis://user:pw@localhost:6379/3":         "",
		"rediss://localhost:6379":                  "",
		"unix:///run/redis.sock?db=1":              "",
		"redis://localhost?prefix=shop":            "",
		"redis://localhost?pool_size=5":            "",
		"redis://localhost?prefix=":                "prefix",
		"redis://localhost?prefix=a&prefix=b":      "prefix",
		"redis://localhost?prefix=%7Bx%7D":         "prefix",
		"redis://localhost?max_retries=3":          "carried out twice",
		"rediss://localhost?ca_file=/ca.crt":       "",
		"redis://localhost?ca_file=/ca.crt":        "rediss://",
		"rediss://localhost?ca_file=":              "ca_file",
		"rediss://localhost?cert_file=/a.crt":      "go together",
		"redis://localhost?colour=blue":            "colour",
		"redis://localhost/jobs":                   "database number",
		"redis://user:secret@localhost?colour=red": "colour",
	} {
		cfg, d := config(t, text)
		err := d.Check(cfg)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want an error with %q", text, err, want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: the error tells the password: %v", text, err)
		}
	}
}
