package settings

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestEnvironmentBeatsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chicory.json")
	if err := os.WriteFile(path, []byte(`{"url":"file:","queue":"from-file","concurrency":7,"strict":true,"shutdown_timeout":"3s"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(FileVariable, path)
	t.Setenv("CHICORY_URL", "env:")
	s, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	var url, queue, explicit = "", "", "mine"
	s.String("url", &url)
	s.String("queue", &queue)
	s.String("queue", &explicit)
	if url != "env:" || queue != "from-file" || explicit != "mine" {
		t.Errorf("got %q, %q, %q; want env over file, and what is set kept", url, queue, explicit)
	}
	var n int
	var d time.Duration
	var b bool
	for _, err := range []error{s.Int("concurrency", &n), s.Duration("shutdown_timeout", &d), s.Bool("strict", &b)} {
		if err != nil {
			t.Error(err)
		}
	}
	if n != 7 || d != 3*time.Second || !b {
		t.Errorf("got %d, %v, %v", n, d, b)
	}
	t.Setenv("CHICORY_CONCURRENCY", "many")
	n = 0
	if err := s.Int("concurrency", &n); err == nil {
		t.Error("a number that is none was accepted")
	}
}

func TestLoadReportsBadFiles(t *testing.T) {
	t.Setenv(FileVariable, filepath.Join(t.TempDir(), "missing"))
	if _, err := Load(); err == nil {
		t.Error("a missing file was accepted")
	}
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("url=x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(FileVariable, bad)
	if _, err := Load(); err == nil {
		t.Error("a file that is no JSON was accepted")
	}
}
