package settings

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// environment has nothing with the prefix but what is in vars.
func environment(t *testing.T, vars map[string]string) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, Prefix) {
			t.Setenv(name, "")
		}
	}
	for name, value := range vars {
		t.Setenv(name, value)
	}
}

func TestEnvironment(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("redis://:pw@host\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	environment(t, map[string]string{"CHICORY_URL_FILE": secret, "CHICORY_QUEUE": "q", "CHICORY_BROKER": "",
		// What Kubernetes says of services called chicory and chicory-redis.
		"CHICORY_PORT": "tcp://10.0.0.1:80", "CHICORY_PORT_80_TCP": "tcp://10.0.0.1:80", "CHICORY_SERVICE_HOST": "10.0.0.1",
		"CHICORY_SERVICE_PORT": "80", "CHICORY_REDIS_SERVICE_PORT_HTTP": "80", "CHICORY_REDIS_PORT_80_TCP_ADDR": "10.0.0.1"})
	values, err := Environment()
	var url string
	_, err2 := values.Read("url", &url)
	if err := errors.Join(err, err2); err != nil || len(values) != 2 || url != "redis://:pw@host" || values["url"].From != "CHICORY_URL_FILE" ||
		values["queue"].Texts[0] != "q" {
		t.Errorf("got %+v, %v; want the URL of the file, and the queue", values, err)
	}
}

func TestEnvironmentRefuses(t *testing.T) {
	tests := []struct {
		vars map[string]string
		says []string
	}{
		{map[string]string{"CHICORY_QEUE": "s3cret", "CHICORY_SPEED": "11", "CHICORY_PORT_TCP": "80"}, []string{"CHICORY_QEUE", "CHICORY_SPEED", "CHICORY_PORT_TCP", "queue"}},
		{map[string]string{"CHICORY_QUEUE_FILE": "/etc/hostname"}, []string{"CHICORY_QUEUE_FILE"}},
		{map[string]string{"CHICORY_URL_FILE": "/none/such"}, []string{"CHICORY_URL_FILE", "/none/such"}},
		{map[string]string{"CHICORY_URL_FILE": "redis://:s3cret@host"}, []string{"CHICORY_URL_FILE", "no such file"}},
		{map[string]string{"CHICORY_://:s3cret": "x"}, []string{"a variable that may hold a URL is unknown"}},
		{map[string]string{"CHICORY_URL_FILE": "/etc/hostname", "CHICORY_URL": "memory:"}, []string{"CHICORY_URL and CHICORY_URL_FILE exclude"}},
	}
	for _, tt := range tests {
		environment(t, tt.vars)
		values, err := Environment()
		var url string
		_, err2 := values.Read("url", &url)
		if err = errors.Join(err, err2); err == nil {
			t.Errorf("%v: accepted", tt.vars)
			continue
		}
		for _, s := range tt.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%v: %q does not say %q", tt.vars, err, s)
			}
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: %q repeats a value", tt.vars, err)
		}
		for name := range tt.vars {
			t.Setenv(name, "")
		}
	}
}

func TestLoadTellsOfAFileThatNobodyReads(t *testing.T) {
	environment(t, map[string]string{FileVariable: "chicory.toml"})
	if _, err := Load(); err == nil || !strings.Contains(err.Error(), "config.Load") {
		t.Errorf("got %v, want what is missing", err)
	}
	WithoutFile(func() {
		if _, err := Load(); err != nil {
			t.Errorf("got %v within WithoutFile", err)
		}
	})
	if _, err := Load(); err == nil {
		t.Error("accepted after WithoutFile")
	}
	FileRead.Store(true)
	defer FileRead.Store(false)
	if _, err := Load(); err != nil {
		t.Errorf("got %v after the file was read", err)
	}
}

func TestKeysAreUnique(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, k := range Keys {
		if seen[k.Variable()] || ofKubernetes(k.Variable()) || k.Variable() == FileVariable || strings.HasSuffix(k.Variable(), fileSuffix) {
			t.Errorf("%s is twice, or means something else", k.Variable())
		}
		seen[k.Variable()] = true
		if k.Doc == "" || k.Want() == "" || !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s is not described", k.Name)
		}
	}
}

func TestReadFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("\ufeff12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link") // as secrets of Kubernetes are
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(link, 8); err != nil || string(b) != "12345" {
		t.Errorf("got %q, %v; want the text without a byte order mark", b, err)
	}
	for path, want := range map[string]string{
		file: "has more than", dir: "directory", "/dev/zero": "no regular file",
		filepath.Join(dir, "none"): filepath.Join(dir, "none"),
	} {
		if _, err := ReadFile(path, 7); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
	for _, path := range []string{"redis://:s3cret@host", "s3cret@host", "redis://s3cret"} {
		if _, err := ReadFile(path, 7); !errors.Is(err, os.ErrNotExist) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: got %v, want what is wrong, and no password", path, err)
		}
	}
}
