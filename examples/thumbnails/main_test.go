package main

import (
	"context"
	"image/jpeg"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/chicory-go/chicory/examples/internal/exampletest"
)

func TestOutput(t *testing.T) {
	target := t.TempDir()
	out := exampletest.Run(t, func(ctx context.Context, w io.Writer) error { return run(ctx, w, target, "") },
		"pictures in ", "[ 1/", " made, ", "Thumbnails are in ", "Dead letter: attempts ")
	counts := regexp.MustCompile(`(\d+) made, (\d+) failed`).FindStringSubmatch(out)
	made, _ := strconv.Atoi(counts[1])
	failed, _ := strconv.Atoi(counts[2])
	files, err := filepath.Glob(filepath.Join(target, "*.thumb.jpeg"))
	if err != nil || made < 10 || len(files) != made {
		t.Errorf("%d thumbnails on disk, %v; the output says %d", len(files), err, made)
	}
	if dead := strings.Count(out, "Dead letter: "); failed == 0 || dead != failed {
		t.Errorf("%d failed, %d dead letters; want as many, and at least one", failed, dead)
	}
	if !strings.Contains(out, "Dead letter: attempts 3, broken.png: png: invalid format") {
		t.Error("the dead letters do not tell of the broken picture and its attempts")
	}
	f, err := os.Open(filepath.Join(target, "video-001.png.thumb.jpeg"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if c, err := jpeg.DecodeConfig(f); err != nil || c.Width != edge {
		t.Errorf("thumbnail: %+v, %v; want %d pixels wide", c, err, edge)
	}
}

func TestRetriesWhatMayRecover(t *testing.T) {
	source := t.TempDir()
	if err := os.WriteFile(filepath.Join(source, "broken.png"), []byte("no picture"), 0o600); err != nil {
		t.Fatal(err)
	}
	png, err := os.ReadFile(filepath.Join(must(testPictures(t.Context())), "video-001.png"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(source, "fine.png"), png, 0o600); err != nil {
		t.Fatal(err)
	}
	nowhere := filepath.Join(t.TempDir(), "missing")
	exampletest.Run(t, func(ctx context.Context, w io.Writer) error { return run(ctx, w, nowhere, source) },
		"2 pictures", "0 made, 2 failed",
		"Dead letter: attempts 1, broken.png: image: unknown format", // not retried
		"Dead letter: attempts 3, ",                                  // no folder: retried twice
	)
}

func must(s string, err error) string {
	if err != nil {
		panic(err)
	}
	return s
}
